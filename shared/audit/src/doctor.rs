//! Examines the audit log of the last day.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use keyway_domain::audit::Event;
use keyway_domain::doctor::{Code, Finding};
use keyway_domain::one_line;
use keyway_domain::ports::{Clock, Kind, Record, TableReader};

use crate::packed::text;
use crate::reading::TableLog;
use crate::verify::{Verified, Verifier};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const SUBJECT: &str = "audit log";

/// Findings about the events of the last day, and the newest date of an event, which may be ahead of `clock`.
pub async fn examine(
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
) -> (Vec<Finding>, Option<Timestamp>) {
    let since = clock.now().saturating_sub(DAY).unwrap_or(Timestamp::MIN);
    let log = TableLog::new(table, clock);
    // The day begins in the middle of the writers' events.
    let mut verifier = Verifier::new(true).in_any_order();
    let (mut newest, mut recent) = (None, 0_u64);
    let each = |record: Record| {
        for line in text(&record).lines() {
            verifier.line(line);
            let event = serde_json::from_str::<Event<'_>>(line).ok();
            let date = event.and_then(|event| event.time.parse::<Timestamp>().ok());
            recent += u64::from(date.is_some_and(|date| date >= since));
            newest = newest.max(date);
        }
    };
    match log.records(Kind::Audit, Some(since), None, each).await {
        Ok(()) => (judge(&verifier.finish(), recent), newest),
        Err(error) => (vec![Finding::failed(SUBJECT, one_line(&error))], newest),
    }
}

fn judge(verified: &Verified, recent: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lost: u64 = verified.writers.iter().map(|writer| writer.lost).sum();
    if let Some(first) = verified.findings.first() {
        let more = verified.findings.len() - 1;
        let seen = match more {
            0 => first.to_string(),
            more => format!("{first}, and {more} more findings"),
        };
        findings.push(Finding::new(Code::AuditGap, SUBJECT, seen));
    }
    if lost > 0 {
        let seen = format!("the table did not get {lost} events");
        findings.push(Finding::new(Code::AuditLost, SUBJECT, seen));
    }
    if recent == 0 {
        let seen = "no events of the last day";
        findings.push(Finding::new(Code::AuditEmpty, SUBJECT, seen));
    } else if findings.is_empty() {
        let writers = verified.writers.len();
        let seen = format!("{recent} events; {writers} writers' chains verify");
        findings.push(Finding::new(Code::AuditOk, SUBJECT, seen));
    }
    findings
}
