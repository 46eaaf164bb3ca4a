//! The log: one line an event on standard output.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::span_fields::SpanFields;

/// How the log's lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// So many errors may be read late by one who follows.
const FOLLOWED: usize = 256;

static ERRORS: LazyLock<broadcast::Sender<Arc<str>>> =
    LazyLock::new(|| broadcast::channel(FOLLOWED).0);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many errors and warnings this process has had.
pub fn error_count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The errors and warnings of this process from now on, each as one line of text. Who reads too slowly loses the oldest.
pub fn errors() -> broadcast::Receiver<Arc<str>> {
    ERRORS.subscribe()
}

/// Tells those who follow of errors and warnings.
struct Told;

impl<S: Subscriber> Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        COUNT.fetch_add(1, Ordering::Relaxed);
        if ERRORS.receiver_count() > 0 {
            let mut text = Text::default();
            event.record(&mut text);
            // Nobody may be left to hear it.
            ERRORS
                .send(format!("{}{}", text.message, text.fields).into())
                .ok();
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes what is written to it.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).ok();
        }
    }
}

/// What reads files of credentials and quotes them in its warnings. That there are no credentials is said where they are needed.
const QUOTING: [&str; 1] = ["aws_runtime::env_config"];

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
        let target = metadata.target();
        let is_quoting = QUOTING.iter().any(|quoting| target.starts_with(quoting));
        (*metadata.level() <= Level::INFO || target.starts_with("keyway")) && !is_quoting
    });
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .fmt_fields(SpanFields)
            .finish()
            .with(Told)
            .with(wanted)
            .with(own)
            .try_init()?,
        LogFormat::Text => builder
            .with_ansi(false)
            .finish()
            .with(Told)
            .with(wanted)
            .with(own)
            .try_init()?,
    }
    Ok(())
}
