//! The log: one line for each event, on standard output.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use keyway_http::CurrentRequest;
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::span::EnteredSpan;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How the log's lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How many errors a follower may lag behind.
const FOLLOWED: usize = 256;

static ERRORS: LazyLock<broadcast::Sender<Arc<str>>> =
    LazyLock::new(|| broadcast::channel(FOLLOWED).0);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many errors and warnings this process has had.
pub fn error_count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The errors and warnings of this process from now on, each as one line of text. A slow reader loses the oldest.
pub fn errors() -> broadcast::Receiver<Arc<str>> {
    ERRORS.subscribe()
}

/// Sends errors and warnings to followers.
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
            // The last follower may just have gone.
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
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).ok();
        }
    }
}

thread_local! {
    static REQUEST: RefCell<Option<EnteredSpan>> = const { RefCell::new(None) };
}

/// Gives each line that is logged for a request a span with the request's fields. The span lasts as long as the line: most
/// requests log nothing, and a span of each would cost as much as reading its head.
enum RequestSpan {
    /// The layer below the one that writes the line.
    Opened,
    /// The layer above it.
    Closed,
}

impl<S: Subscriber> Layer<S> for RequestSpan {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let span = match self {
            Self::Opened => CurrentRequest::seen(|request| {
                tracing::error_span!(
                    target: "keyway_http",
                    "request",
                    request_id = &*request.id,
                    dialect = request.dialect,
                    operation = request.operation,
                    trace = request.trace(),
                )
                .entered()
            }),
            Self::Closed => None,
        };
        REQUEST.set(span);
    }
}

/// Modules whose warnings quote credential files. Missing credentials are reported where they are needed.
const QUOTING: [&str; 1] = ["aws_runtime::env_config"];

/// A filter with an unknown level, as it was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no level: expected error, warn, info, debug, trace or off, or target=level pairs with commas between them"
)]
pub struct NoLevel(String);

/// Checks the levels of a filter. `Targets` takes an unknown level for a target and enables all of its events, which is
/// never intended.
///
/// # Errors
/// When the filter has an unknown level.
pub fn check_levels(filter: &str) -> Result<(), NoLevel> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in filter.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        let is_known = LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
        // No target has white space in its name: it stands in place of a comma.
        if !is_known || part.contains(char::is_whitespace) {
            return Err(NoLevel(part.chars().take(64).collect()));
        }
    }
    Ok(())
}

/// Starts the log of this process. `filter` is a level, or `target=level` pairs joined by commas.
///
/// Only Keyway's own crates log below `info`: at those levels, libraries log whole requests and answers with the secrets in
/// them.
///
/// # Errors
/// When the filter has an unknown level.
pub fn start_log(
    format: LogFormat,
    filter: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    check_levels(filter)?;
    let wanted: Targets = filter.parse()?;
    let own = filter_fn(|metadata| {
        let target = metadata.target();
        let is_quoting = QUOTING.iter().any(|quoting| target.starts_with(quoting));
        (*metadata.level() <= Level::INFO || target.starts_with("keyway")) && !is_quoting
    });
    let (json, text) = match format {
        LogFormat::Json => {
            let json = fmt::layer().with_target(false).json();
            let json = json.flatten_event(true).with_span_list(false);
            (Some(json), None)
        }
        LogFormat::Text => (None, Some(fmt::layer().with_target(false).with_ansi(false))),
    };
    tracing_subscriber::registry()
        .with(RequestSpan::Opened)
        .with(json)
        .with(text)
        .with(RequestSpan::Closed)
        .with(Told)
        .with(wanted)
        .with(own)
        .try_init()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_levels;

    #[test]
    fn filter_of_known_levels_is_taken() {
        for filter in [
            "info",
            "WARN",
            "off",
            "keyway=debug",
            "info,keyway_http=trace",
        ] {
            assert!(check_levels(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn filter_of_no_known_level_is_refused_with_the_known_ones() {
        for filter in [
            "",
            "verbose",
            "infos",
            "keyway",
            "info,",
            "keyway=loud",
            "info keyway=debug",
        ] {
            let refused = check_levels(filter).expect_err(filter).to_string();
            assert!(
                refused.contains("error, warn, info, debug, trace or off"),
                "{refused}"
            );
        }
    }
}
