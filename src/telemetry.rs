//! Logs: one subscriber, on standard error, as text or JSON.
//!
//! Standard output belongs to data alone. `RUST_LOG` beats the configured level. Nothing here adds
//! fields: events carry their own dotted names (`rotation.id`), and secrets cannot get in because
//! their types do not print. Metrics and traces are not part of this.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::{Log, LogFormat};

/// Starts logging for the whole process.
///
/// # Errors
/// When the level cannot be read or logging was started before.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let start = tracing_subscriber::fmt()
        .with_env_filter(filter(text.as_deref().unwrap_or(&log.level))?)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => start.try_init(),
        LogFormat::Json => start.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
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
