//! Logs: one subscriber, on standard error, as text or JSON; and the same spans to an OpenTelemetry
//! collector where one is configured.
//!
//! Standard output belongs to data alone. `RUST_LOG` overrides the configured level. Nothing here adds
//! fields: events carry their own dotted names (`rotation.id`), and secrets cannot get in because their
//! types do not print. Metrics are not part of this.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat};
use crate::domain::text::{visible, visible_json};

/// The logging of a running process.
pub struct Telemetry {
    level: Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Changes the level from now on. `RUST_LOG` still overrides it.
    ///
    /// # Errors
    /// Fails when the level cannot be read; then nothing changes.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        (self.level)(filter(&wanted(level))?)
    }

    /// Exports the last spans.
    pub async fn end(&self) {
        let Some(traces) = self.traces.clone() else { return };
        let done = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_SPANS)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(error = %error, "the last spans were not exported");
        }
    }
}

/// How long the end waits for a collector.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// Spans to an OpenTelemetry collector, over HTTP.
fn traces(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name("keywheel").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// `RUST_LOG` where it is set.
fn wanted(level: &str) -> String {
    std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty()).unwrap_or_else(|| level.to_owned())
}

/// Starts logging for the whole process.
///
/// # Errors
/// Fails when the level cannot be read or logging was started before.
pub fn init(log: &Log) -> anyhow::Result<Telemetry> {
    let (filter, handle) = reload::Layer::new(filter(&wanted(&log.level))?);
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let shown = Shown { json: log.format == LogFormat::Json, ansi };
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(move || shown);
    let traces = log.otlp_endpoint.as_deref().map(traces).transpose()?;
    let spans = traces.as_ref().map(|it| tracing_opentelemetry::layer().with_tracer(it.tracer("keywheel")));
    let registry = tracing_subscriber::registry().with(filter).with(spans);
    let started = match log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    Ok(Telemetry { level: Box::new(move |filter| Ok(handle.reload(filter)?)), traces })
}

/// Standard error, with the hidden characters of each line as escapes: names in a line come from outside.
#[derive(Clone, Copy, Debug)]
struct Shown {
    json: bool,
    /// Colours are ours; the formatter has escaped those of others.
    ansi: bool,
}

impl Shown {
    fn of(self, line: &str) -> String {
        if self.json {
            return visible_json(line);
        }
        let keep = |c: char| c == '\n' || (self.ansi && c == '\u{1b}');
        line.split_inclusive(keep)
            .map(|piece| match piece.char_indices().next_back() {
                Some((at, last)) if keep(last) => format!("{}{last}", visible(&piece[..at])),
                _ => visible(piece),
            })
            .collect()
    }
}

impl std::io::Write for Shown {
    /// Writes one line: the formatter hands each over whole.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let shown = self.of(&String::from_utf8_lossy(line));
        std::io::stderr().lock().write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// The filter for `text`. The scheduler logs its internals at info, so it is limited to warnings unless
/// `text` names it.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(text)
        .map_err(|error| anyhow::anyhow!("log.level or RUST_LOG cannot be read: {error}"))?;
    if text.contains("tokio_cron_scheduler") {
        return Ok(filter);
    }
    let quiet: Directive = "tokio_cron_scheduler=warn".parse()?;
    Ok(filter.add_directive(quiet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_hidden_characters() {
        let line = "INFO \u{1b}[2mname\u{1b}[0m=a\u{202e}b\u{9b}31m\u{200b}\n";
        let plain = Shown { json: false, ansi: false }.of(line);
        assert!(plain.ends_with('\n') && plain.trim_end().chars().all(|c| !c.is_control()), "{plain:?}");
        let coloured = Shown { json: false, ansi: true }.of(line);
        assert_eq!(coloured, "INFO \u{1b}[2mname\u{1b}[0m=a\\u{202e}b\\u{9b}31m\\u{200b}\n");
        let json = format!("{}\n", serde_json::json!({ "name": "a\u{202e}\u{9b}b" }));
        let shown = Shown { json: true, ansi: false }.of(&json);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["name"], "a\u{202e}\u{9b}b");
    }

    #[test]
    fn the_scheduler_is_quiet_unless_asked() {
        assert!(filter("info").unwrap().to_string().contains("tokio_cron_scheduler=warn"));
        assert!(!filter("info,tokio_cron_scheduler=debug").unwrap().to_string().contains("=warn"));
        assert!(filter("info,=,").is_err());
    }
}
