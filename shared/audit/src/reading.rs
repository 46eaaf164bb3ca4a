//! Reading what the table has of the log, hour by hour.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::audit::{AuditLog, AuditLogError, Event, EventPage, EventQuery};
use keyway_domain::ports::{Clock, Consistency, Kind, Record, StoreError, TableReader};

use crate::lines::BATCH_SPAN;
use crate::packed::text;
use crate::table::id_time;

/// So many hours are looked at for one page; more of them follow its marker.
const MOST_HOURS: usize = 400;
/// Records that are read at once. They may be large.
const RECORDS: usize = 16;
/// Clocks of other processes may be ahead of this one's, and this one's may have been an hour ahead before it was set.
const AHEAD: SignedDuration = SignedDuration::from_hours(2);
/// Whoever wants a log whole looks so far beyond both ends: a writer's events go on there when its clock was set, and all
/// of them are needed to see that none is missing.
const MARGIN: SignedDuration = SignedDuration::from_hours(25);
/// How far back a log goes that is kept for ever, unless a query says so.
const FOR_EVER_DAYS: u32 = 366;
/// How far back a page goes when nothing is said.
const LATELY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What the table has of the log.
pub struct TableLog {
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    retention_days: u32,
}

/// Where reading goes on: within an hour, after a record, or after some lines of it.
struct Position {
    hour: Timestamp,
    after: Option<String>,
    /// How many lines of that record were given. All of them, when nothing is said.
    lines: Option<usize>,
}

/// The part of ids that begin within the hour.
pub(crate) fn part(time: Timestamp) -> String {
    let bytes = Kind::Audit.part_bytes().unwrap_or_default();
    id_time(time).chars().take(bytes).collect()
}

fn hour_of(time: Timestamp) -> Timestamp {
    let seconds = time.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(3600)).unwrap_or(time)
}

impl Position {
    fn parse(marker: &str) -> Option<Self> {
        let (id, lines) = match marker.split_once('/') {
            Some((id, lines)) => (id, Some(lines.parse().ok()?)),
            None => (marker, None),
        };
        let part = id.get(..Kind::Audit.part_bytes()?)?;
        let hour = DateTime::strptime("%Y%m%dT%H%M", format!("{part}00")).ok()?;
        let hour = hour.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let after = (id.len() > part.len()).then(|| id.to_owned());
        (id.len() <= 128).then_some(Self { hour, after, lines })
    }
}

impl TableLog {
    /// `retention_days`: how far back it goes; 0 for as far as there can be anything.
    pub fn new(table: Arc<dyn TableReader>, clock: Arc<dyn Clock>, retention_days: u32) -> Self {
        Self {
            table,
            clock,
            retention_days,
        }
    }

    /// Gives every record of the kind that can hold events since then and before `until` to `each`, and those that were
    /// written about a day before and after; in the order of their ids. Without both, a store that is one piece gives all
    /// that it has, whatever their times.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn records(
        &self,
        kind: Kind,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        mut each: impl FnMut(Record) + Send,
    ) -> Result<(), StoreError> {
        if since.is_none() && until.is_none() && self.part(kind, "", &mut each).await? {
            return Ok(());
        }
        let mut hour = hour_of(earlier(self.start(since), MARGIN));
        let end = self.clock.now().saturating_add(MARGIN);
        let end = end.unwrap_or(Timestamp::MAX);
        let end = until.map_or(end, |until| {
            until
                .saturating_add(MARGIN)
                .map_or(end, |until| until.min(end))
        });
        while hour < end {
            self.part(kind, &part(hour), &mut each).await?;
            hour = hour.saturating_add(HOUR).unwrap_or(end);
        }
        Ok(())
    }

    /// Gives every event since then and before `until` to `each`, a line each. A line without a time is given too.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn events(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        mut each: impl FnMut(&str) + Send,
    ) -> Result<(), StoreError> {
        let mut each = |record: Record| {
            let text = text(&record);
            let lines = text.lines().filter(|line| is_within(line, since, until));
            lines.for_each(&mut each);
        };
        self.records(Kind::Audit, since, until, &mut each).await
    }

    /// Gives every record whose id begins so. Whether there is any.
    async fn part(
        &self,
        kind: Kind,
        part: &str,
        each: &mut (impl FnMut(Record) + Send),
    ) -> Result<bool, StoreError> {
        let mut after: Option<String> = None;
        loop {
            let page = self
                .table
                .page(kind, part, after.as_deref(), RECORDS)
                .await?;
            if let Some(last) = page.records.last() {
                after = Some(last.id.clone());
            }
            page.records.into_iter().for_each(&mut *each);
            if !page.more {
                return Ok(after.is_some());
            }
        }
    }

    fn start(&self, since: Option<Timestamp>) -> Timestamp {
        let days = match self.retention_days {
            0 => FOR_EVER_DAYS,
            days => days,
        };
        let back = SignedDuration::from_hours(24 * i64::from(days));
        let start = since.unwrap_or_else(|| earlier(self.clock.now(), back));
        // A record is named after its first event, and its last may be a while after.
        earlier(start, BATCH_SPAN)
    }

    fn end(&self, until: Option<Timestamp>) -> Timestamp {
        let now = self.clock.now().saturating_add(AHEAD);
        let now = now.unwrap_or(Timestamp::MAX);
        until.map_or(now, |until| until.min(now))
    }
}

fn earlier(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[async_trait]
impl AuditLog for TableLog {
    async fn page(&self, query: &EventQuery) -> Result<EventPage, AuditLogError> {
        let mut at = match &query.marker {
            Some(marker) => Position::parse(marker).ok_or(AuditLogError::Marker)?,
            None => Position {
                hour: hour_of(self.start(Some(match query.since {
                    Some(since) => since,
                    None => earlier(self.clock.now(), LATELY),
                }))),
                after: None,
                lines: None,
            },
        };
        let end = self.end(query.until);
        let mut page = EventPage::default();
        // A record of which some lines were given already is read again, for the others.
        if let Some(lines) = at.lines
            && let Some(id) = at.after.clone()
            && let Some(record) = self
                .table
                .get(Kind::Audit, &id, Consistency::Strong)
                .await?
            && let Some(next) = take(query, &record, lines, &mut page)
        {
            page.next = Some(next);
            return Ok(page);
        }
        for _ in 0..MOST_HOURS {
            if at.hour >= end {
                return Ok(page);
            }
            let part = part(at.hour);
            loop {
                let found = self
                    .table
                    .page(Kind::Audit, &part, at.after.as_deref(), RECORDS)
                    .await?;
                for record in &found.records {
                    if let Some(next) = take(query, record, 0, &mut page) {
                        page.next = Some(next);
                        return Ok(page);
                    }
                }
                if !found.more {
                    break;
                }
                at.after = found.records.last().map(|record| record.id.clone());
            }
            at.after = None;
            at.hour = at.hour.saturating_add(HOUR).unwrap_or(end);
        }
        page.next = Some(part(at.hour));
        Ok(page)
    }
}

/// Takes the events of a record that are wanted, from a line on. Where the page is full it says where to go on.
fn take(query: &EventQuery, record: &Record, from: usize, page: &mut EventPage) -> Option<String> {
    for (number, line) in text(record).lines().enumerate().skip(from) {
        if page.events.len() >= query.limit {
            return Some(format!("{}/{number}", record.id));
        }
        // What cannot be read is for verifying to find.
        let Ok(event) = serde_json::from_str::<Event<'_>>(line) else {
            continue;
        };
        let Ok(time) = event.time.parse::<Timestamp>() else {
            continue;
        };
        if query.since.is_none_or(|since| time >= since)
            && query.until.is_none_or(|until| time < until)
            && query.wants(&event)
        {
            page.events.push(line.into());
        }
    }
    None
}

/// Whether the event is of the span. The records at the ends of a span hold other events as well.
fn is_within(line: &str, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let event = serde_json::from_str::<Event<'_>>(line);
    let time = event
        .ok()
        .and_then(|event| event.time.parse::<Timestamp>().ok());
    time.is_none_or(|time| {
        since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
    })
}
