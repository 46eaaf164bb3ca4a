//! `keyway audit tail`.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use keyway_client::{AuditEvent, AuditTail, Class, TailQuery};
use tokio::time::sleep;

use super::Server;
use super::printing::{self, shown};
use crate::migration::Output;
use crate::tell;

/// How long to wait before a lost server is called again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    server: Server,

    /// Begin at this time, such as 2026-01-02T03:04:05Z; without it, ten seconds ago
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,

    /// Only events of this key
    #[arg(long, value_name = "ID")]
    key: Option<String>,

    /// Only events of this caller
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,

    /// End after the events that are there, instead of waiting for others
    #[arg(long)]
    no_follow: bool,

    /// How to print them; as JSON, each event is a line in the API's own shape
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(arguments: Tail) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let mut tail = client.audit_tail(TailQuery {
        since: arguments.since,
        key_id: arguments.key,
        principal: arguments.principal,
    })?;
    if arguments.no_follow {
        while let Some(events) = tail.present().await? {
            print(&events, arguments.output)?;
        }
        return Ok(());
    }
    follow(&mut tail, arguments.output).await
}

/// Prints events until the command is stopped. A server that was reached once is waited for when it goes away.
async fn follow(tail: &mut AuditTail<'_>, output: Output) -> anyhow::Result<()> {
    let (mut was_reached, mut is_lost) = (false, false);
    loop {
        match tail.next().await {
            Ok(events) => {
                if !events.is_empty() {
                    print(&events, output)?;
                }
                (was_reached, is_lost) = (true, false);
            }
            Err(error) if was_reached && error.class() == Class::Unreachable => {
                if !is_lost {
                    tell(&format!("keyway: {error}; trying again"));
                    is_lost = true;
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn print(events: &[AuditEvent], output: Output) -> anyhow::Result<()> {
    let mut text = String::new();
    for event in events {
        match output {
            Output::Json => text.push_str(&event.json),
            Output::Text => text.push_str(&line(event)),
        }
        text.push('\n');
    }
    Ok(printing::write(text.as_bytes())?)
}

/// An event in columns; what it lacks is `-`.
fn line(event: &AuditEvent) -> String {
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), shown);
    let status = event.status.map(|status| status.to_string());
    let mut line = [
        text(&event.time),
        text(&status),
        text(&event.operation),
        text(&event.resource),
        text(&event.principal),
        text(&event.address),
    ]
    .join("  ");
    if let Some(error) = &event.error {
        line.push_str("  ");
        line.push_str(&shown(error));
    }
    line
}
