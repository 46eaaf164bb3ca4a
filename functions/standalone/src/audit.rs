//! `keyway audit`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use keyway_audit::{Finding, TableLog, Verifier};
use keyway_domain::audit::Event;
use keyway_domain::ports::{Kind, Record};
use serde_json::json;

use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{print, tell};

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Find out whether events were removed, altered or put elsewhere
    Verify(Box<Verify>),
    /// Print what the table has of the log, one event a line
    Export(Box<Export>),
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
    #[arg(long, value_name = "WRITER:NUMBER:HASH", value_parser = known)]
    expect: Vec<Known>,

    /// The log may begin in the middle of a writer's events, as a log does whose beginning has expired
    #[arg(long)]
    midway: bool,

    /// A log without any event is well too
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

#[derive(Clone)]
struct Known {
    writer: String,
    seq: u64,
    hash: String,
}

fn known(text: &str) -> Result<Known, &'static str> {
    const WANTED: &str = "is not WRITER:NUMBER:HASH, as `keyway audit verify` prints it";
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(writer), Some(seq), Some(hash), None) => Ok(Known {
            writer: writer.to_owned(),
            seq: seq.parse().map_err(|_| WANTED)?,
            hash: hash.to_owned(),
        }),
        _ => Err(WANTED),
    }
}

pub(crate) async fn run(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify(verify) => run_verify(*verify).await,
        AuditCommand::Export(export) => run_export(export.span).await,
    }
}

impl Span {
    /// Gives every line of the table's log that can be of the span.
    async fn lines(&self, mut each: impl FnMut(&str) + Send) -> anyhow::Result<()> {
        let ports = self.location.open().await?.reading();
        let log = TableLog::new(ports.table, ports.clock, 0);
        let each = |record: Record| keyway_audit::text(&record).lines().for_each(&mut each);
        log.records(Kind::Audit, self.since, self.until, each)
            .await
            .context("the table")
    }
}

async fn run_verify(verify: Verify) -> anyhow::Result<()> {
    let midway = verify.midway || verify.span.since.is_some();
    let mut verifier = Verifier::new(midway);
    if verify.file.is_none() {
        verifier = verifier.in_any_order();
    }
    for Known { writer, seq, hash } in verify.expect {
        verifier.expect(writer, seq, hash);
    }
    match &verify.file {
        None => verify.span.lines(|line| verifier.line(line)).await?,
        Some(path) if path.as_os_str() == "-" => {
            read_kept(io::stdin().lock(), &mut verifier).context("standard input")?;
        }
        Some(path) => {
            let read =
                File::open(path).and_then(|file| read_kept(BufReader::new(file), &mut verifier));
            read.with_context(|| path.display().to_string())?;
        }
    }
    let verified = verifier.finish();
    let events: u64 = verified.writers.iter().map(|writer| writer.count).sum();
    let mut findings: Vec<String> = verified.findings.iter().map(ToString::to_string).collect();
    if events == 0 && !verify.allow_empty {
        let place = match &verify.file {
            None => "the table".to_owned(),
            Some(path) if path.as_os_str() == "-" => "standard input".to_owned(),
            Some(path) => path.display().to_string(),
        };
        findings.push(format!("no audit events found in {place}"));
    }
    let lacks_beginning = (verified.findings.iter())
        .any(|finding| matches!(finding, Finding::Missing { first: 0, .. }));
    match verify.output {
        Output::Json => {
            let writers = verified.writers.iter().map(|writer| {
                json!({
                    "writer": writer.writer, "first": writer.first, "last": writer.last,
                    "count": writer.count, "lost": writer.lost, "hash": writer.hash,
                })
            });
            print(
                &json!({
                    "ok": findings.is_empty(),
                    "events": events,
                    "writers": writers.collect::<Vec<_>>(),
                    "findings": findings,
                })
                .to_string(),
            );
        }
        Output::Text => {
            for writer in &verified.writers {
                print(&format!(
                    "{}:{}:{} {} events",
                    writer.writer, writer.last, writer.hash, writer.count
                ));
                if writer.lost > 0 {
                    print(&format!(
                        "  the table did not get {} more; standard output has them",
                        writer.lost
                    ));
                }
            }
            if findings.is_empty() {
                let writers = verified.writers.len();
                print(&format!("OK: {events} events of {writers} writers"));
            }
            for finding in &findings {
                tell(finding);
            }
            if lacks_beginning && !midway {
                tell(
                    "where the beginning has expired or was rotated away, --midway verifies what is left",
                );
            }
        }
    }
    if events == 0 && !findings.is_empty() {
        bail!("there is nothing to verify; --allow-empty accepts that");
    }
    if !findings.is_empty() {
        bail!("the audit log is not as it was written");
    }
    Ok(())
}

/// Reads a log line by line. What is no UTF-8 is of other lines, or was altered.
fn read_kept(mut log: impl BufRead, verifier: &mut Verifier) -> io::Result<()> {
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line)? > 0 {
        verifier.kept_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

async fn run_export(span: Span) -> anyhow::Result<()> {
    let mut output = BufWriter::new(io::stdout());
    let mut written = Ok(());
    span.lines(|line| {
        if written.is_ok() && span.has(line) {
            written = writeln!(output, "{line}");
        }
    })
    .await?;
    written
        .and_then(|()| output.flush())
        .context("standard output")
}

impl Span {
    /// Whether the event is of the span; records that are at its ends hold others as well.
    fn has(&self, line: &str) -> bool {
        let event = serde_json::from_str::<Event<'_>>(line);
        let time = event
            .ok()
            .and_then(|event| event.time.parse::<Timestamp>().ok());
        let Some(time) = time else {
            return true;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}
