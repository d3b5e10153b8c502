//! Logs: one subscriber, on standard error, as text or JSON.
//!
//! Standard output belongs to data alone. `RUST_LOG` beats the configured level. Nothing here adds
//! fields: events carry their own dotted names (`rotation.id`), and secrets cannot get in because
//! their types do not print. Metrics and traces are not part of this.

use std::io::IsTerminal;

use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat};

/// Changes the level of a running process.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>);

impl LogLevel {
    /// From now on. `RUST_LOG` still beats it.
    ///
    /// # Errors
    /// A level that cannot be read changes nothing.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        (self.0)(filter(&wanted(level))?)
    }
}

/// `RUST_LOG` where it is set.
fn wanted(level: &str) -> String {
    std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty()).unwrap_or_else(|| level.to_owned())
}

/// Starts logging for the whole process.
///
/// # Errors
/// When the level cannot be read or logging was started before.
pub fn init(log: &Log) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(filter(&wanted(&log.level))?);
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    Ok(LogLevel(Box::new(move |filter| Ok(handle.reload(filter)?))))
}

/// The filter for `text`; the scheduler talks about its own insides at info and is kept quiet
/// unless `text` mentions it.
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
    fn the_scheduler_is_quiet_unless_asked() {
        assert!(filter("info").unwrap().to_string().contains("tokio_cron_scheduler=warn"));
        assert!(!filter("info,tokio_cron_scheduler=debug").unwrap().to_string().contains("=warn"));
        assert!(filter("info,=,").is_err());
    }
}
