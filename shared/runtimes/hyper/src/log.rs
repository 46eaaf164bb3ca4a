//! The log: one line an event on standard output.

use tracing::Level;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How the log's lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts the log of this process. `filter` is a level, or `target=level` pairs joined by commas.
///
/// What is finer than `info` comes from Keyway's own crates only: at those levels the libraries below them log requests
/// and answers whole, with the secrets in them.
///
/// # Errors
/// When the filter is none.
pub fn start_log(
    format: LogFormat,
    filter: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let wanted: Targets = filter.parse()?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_target(false);
    let own = filter_fn(|metadata| {
        *metadata.level() <= Level::INFO || metadata.target().starts_with("keyway")
    });
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .with(wanted)
            .with(own)
            .try_init()?,
        LogFormat::Text => builder
            .with_ansi(false)
            .finish()
            .with(wanted)
            .with(own)
            .try_init()?,
    }
    Ok(())
}
