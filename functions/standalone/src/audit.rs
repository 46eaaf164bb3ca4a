//! `keyway audit`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use keyway_audit::{KnownEvent, TableLog, Verified, Verifier};
use keyway_domain::ports::{Kind, Record};
use serde_json::json;

use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{client, print, tell};

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Find out whether events were removed, altered or put elsewhere
    Verify(Box<Verify>),
    /// Print what the table has of the log, one event a line
    Export(Box<Export>),
    /// On a server: print the events of its log as they come
    #[command(after_help = client::EXIT_CODES)]
    Tail(Box<client::Tail>),
}

/// Which part of the table's log is meant.
#[derive(Args)]
struct Span {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Only events from this time on, such as 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,

    /// Only events before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    span: Span,

    /// Verify this file of events instead of the table, or what comes on standard input (-), as it was printed or as a log
    /// driver keeps it (Docker, Kubernetes, journald and others); other lines are passed over
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "until"])]
    file: Option<PathBuf>,

    /// A writer's event that an earlier run has shown, which must still be there as it was
    #[arg(long, value_name = "WRITER:NUMBER:HASH")]
    expect: Vec<KnownEvent>,

    /// The log may begin in the middle of a writer's events, as a log does whose beginning has expired
    #[arg(long)]
    midway: bool,

    /// Accept a log without any event
    #[arg(long)]
    allow_empty: bool,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    span: Span,
}

pub(crate) async fn run(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify(verify) => run_verify(*verify).await,
        AuditCommand::Export(export) => run_export(export.span).await,
        AuditCommand::Tail(tail) => client::run(client::tail(*tail)).await,
    }
}

/// The table's log. Its events are chained, not signed, so an auditor needs no root keyring.
async fn table_log(location: &DeploymentLocation) -> anyhow::Result<TableLog> {
    let (table, clock) = location.unverified_table().await?;
    Ok(TableLog::new(table, clock))
}

/// The result of a verification.
struct Report {
    verified: Verified,
    /// The findings in the log, and a finding if it should have events but has none.
    findings: Vec<String>,
    /// Whether the log may begin in the middle.
    midway: bool,
}

async fn run_verify(verify: Verify) -> anyhow::Result<()> {
    let midway = verify.midway || verify.span.since.is_some();
    let mut verifier = Verifier::new(midway);
    verify
        .expect
        .iter()
        .cloned()
        .for_each(|known| verifier.expect(known));
    let place = match &verify.file {
        None => {
            let Span {
                location,
                since,
                until,
            } = &verify.span;
            let log = table_log(location).await?;
            verifier = verifier.in_any_order();
            let each = |record: Record| {
                keyway_audit::text(&record)
                    .lines()
                    .for_each(|line| verifier.line(line));
            };
            let read = log.records(Kind::Audit, *since, *until, each).await;
            read.context("the table")?;
            "the table".to_owned()
        }
        Some(path) if path.as_os_str() == "-" => {
            read_kept(io::stdin().lock(), &mut verifier).context("standard input")?;
            "standard input".to_owned()
        }
        Some(path) => {
            let place = path.display().to_string();
            File::open(path)
                .and_then(|file| read_kept(BufReader::new(file), &mut verifier))
                .with_context(|| place.clone())?;
            place
        }
    };
    let verified = verifier.finish();
    let is_empty = verified.events() == 0;
    let mut findings: Vec<String> = verified.findings.iter().map(ToString::to_string).collect();
    if is_empty && !verify.allow_empty {
        findings.push(format!("no audit events found in {place}"));
    }
    let report = Report {
        verified,
        findings,
        midway,
    };
    match verify.output {
        Output::Json => print(&report.json().to_string()),
        Output::Text => report.print_text(),
    }
    match (report.findings.is_empty(), is_empty) {
        (true, _) => Ok(()),
        (false, true) => bail!("there is nothing to verify; --allow-empty accepts that"),
        (false, false) => bail!("the audit log is not as it was written"),
    }
}

impl Report {
    fn json(&self) -> serde_json::Value {
        let writers = self.verified.writers.iter().map(|writer| {
            json!({
                "writer": writer.writer, "first": writer.first, "last": writer.last,
                "count": writer.count, "lost": writer.lost, "hash": writer.hash,
            })
        });
        let restores = self.verified.restores.iter().map(|restored| {
            json!({
                "time": restored.time, "backup": restored.backup,
                "last_record": restored.last_record,
            })
        });
        json!({
            "ok": self.findings.is_empty(),
            "events": self.verified.events(),
            "writers": writers.collect::<Vec<_>>(),
            "findings": self.findings,
            "restores": restores.collect::<Vec<_>>(),
        })
    }

    fn print_text(&self) {
        let writers = &self.verified.writers;
        for writer in writers {
            print(&format!("{} {} events", writer.last_event(), writer.count));
            if writer.lost > 0 {
                print(&format!(
                    "  the table did not get {} more; standard output has them",
                    writer.lost
                ));
            }
        }
        for restored in &self.verified.restores {
            let end = match &restored.last_record {
                Some(last) => format!("its log ends with record {last}"),
                None => "it has no log".to_owned(),
            };
            print(&format!(
                "{} backup {} was restored; {end}",
                restored.time, restored.backup
            ));
        }
        if self.findings.is_empty() {
            let events = self.verified.events();
            print(&format!("OK: {events} events of {} writers", writers.len()));
        }
        for finding in &self.findings {
            tell(finding);
        }
        if self.verified.lacks_beginning() && !self.midway {
            tell(
                "where the beginning has expired or was rotated away, --midway verifies what is left",
            );
        }
    }
}

/// Reads a log line by line. A line that is not UTF-8 is no event, or was altered.
fn read_kept(mut log: impl BufRead, verifier: &mut Verifier) -> io::Result<()> {
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line)? > 0 {
        verifier.kept_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

async fn run_export(
    Span {
        location,
        since,
        until,
    }: Span,
) -> anyhow::Result<()> {
    let mut output = BufWriter::new(io::stdout());
    let mut written = Ok(());
    let log = table_log(&location).await?;
    let each = |line: &str| {
        if written.is_ok() {
            written = writeln!(output, "{line}");
        }
    };
    log.events(since, until, each).await.context("the table")?;
    written
        .and_then(|()| output.flush())
        .context("standard output")
}
