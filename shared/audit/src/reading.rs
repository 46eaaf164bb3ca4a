//! Reads the table's audit log, hour by hour.

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::OpenError;
use keyway_domain::audit::{AuditLog, AuditLogError, Event, EventPage, EventQuery};
use keyway_domain::keyring::beginning_of_logs;
use keyway_domain::ports::{Clock, Consistency, Kind, Page, Record, StoreError, TableReader};

use crate::lines::BATCH_SPAN;
use crate::packed::text;
use crate::table::id_time;

/// The most hours that one page looks at. Its marker leads to the next ones.
const MOST_HOURS: usize = 400;
/// How many records are read at once. They may be large.
const RECORDS: usize = 16;
/// How many hours are asked for at once when a whole log is read. Each may return [`RECORDS`] records.
const HOURS_AT_ONCE: usize = 8;
/// Other processes' clocks may be ahead of this one's, and this one may have been an hour ahead before it was set back.
const AHEAD: SignedDuration = SignedDuration::from_hours(2);
/// How far reading a whole log goes beyond both ends of the span. After its clock is set, a writer's events continue
/// outside of it, and verifying needs all of them to see that none is missing.
const MARGIN: SignedDuration = SignedDuration::from_hours(25);
/// How far a page goes back when the query has no start.
const LATELY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The audit log in the table.
pub struct TableLog {
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
}

/// A place to continue reading: in an hour, after a record, or after some of its lines.
struct Position {
    hour: Timestamp,
    after: Option<String>,
    /// How many lines of that record were returned; `None` for all.
    lines: Option<usize>,
}

/// The part of the table with the ids of this hour.
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
    /// The log in this table.
    pub fn new(table: Arc<dyn TableReader>, clock: Arc<dyn Clock>) -> Self {
        Self { table, clock }
    }

    /// Calls `each` with every record of this kind that can hold events from `since` to before `until`, and with those about
    /// a day before and after, in the order of their ids. Without `since`, it begins when the deployment was made. Without
    /// both, a store that is not divided in parts returns all of its records, whatever their times.
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
        let start = match since {
            Some(since) => earlier(start(since), MARGIN),
            None => self.beginning().await?,
        };
        let mut hour = hour_of(start);
        let end = self.clock.now().saturating_add(MARGIN);
        let end = end.unwrap_or(Timestamp::MAX);
        let end = until.map_or(end, |until| {
            until
                .saturating_add(MARGIN)
                .map_or(end, |until| until.min(end))
        });
        let hours = std::iter::from_fn(|| {
            let this = (hour < end).then_some(hour)?;
            hour = hour.saturating_add(HOUR).unwrap_or(end);
            Some(part(this))
        });
        // Most hours of a year are empty, so the time to answer is nearly all of the time that a long span takes.
        let first_pages = stream::iter(hours).map(|part| async move {
            let page = self.table.page(kind, &part, None, RECORDS).await?;
            Ok::<_, StoreError>((part, page))
        });
        let mut first_pages = pin!(first_pages.buffered(HOURS_AT_ONCE));
        while let Some((part, page)) = first_pages.try_next().await? {
            self.rest(kind, &part, page, &mut each).await?;
        }
        Ok(())
    }

    /// Calls `each` with every event from `since` to before `until`, one line each. Lines without a time are included.
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

    /// Calls `each` with every record whose id begins with `part`. Returns whether there is any.
    async fn part(
        &self,
        kind: Kind,
        part: &str,
        each: &mut (impl FnMut(Record) + Send),
    ) -> Result<bool, StoreError> {
        let page = self.table.page(kind, part, None, RECORDS).await?;
        self.rest(kind, part, page, each).await
    }

    /// Like [`TableLog::part`], when its first page was read.
    async fn rest(
        &self,
        kind: Kind,
        part: &str,
        mut page: Page,
        each: &mut (impl FnMut(Record) + Send),
    ) -> Result<bool, StoreError> {
        let mut is_any = false;
        loop {
            let last = page.records.last().map(|last| last.id.clone());
            is_any |= last.is_some();
            page.records.into_iter().for_each(&mut *each);
            match last {
                Some(last) if page.more => {
                    page = self.table.page(kind, part, Some(&last), RECORDS).await?;
                }
                _ => return Ok(is_any),
            }
        }
    }

    /// The time before which the table has no event.
    async fn beginning(&self) -> Result<Timestamp, StoreError> {
        let beginning = beginning_of_logs(self.table.as_ref(), self.clock.as_ref()).await;
        beginning.map_err(|error| match error {
            OpenError::Store(error) => error,
            error => StoreError::Failed {
                what: "tell when the deployment was made",
                source: error.into(),
            },
        })
    }

    fn end(&self, until: Option<Timestamp>) -> Timestamp {
        let now = self.clock.now().saturating_add(AHEAD);
        let now = now.unwrap_or(Timestamp::MAX);
        until.map_or(now, |until| until.min(now))
    }
}

/// Where records with events from this time on may begin. A record's id has the time of its first event, and its last one
/// may be this much later.
fn start(since: Timestamp) -> Timestamp {
    earlier(since, BATCH_SPAN)
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
                hour: hour_of(start(match query.since {
                    Some(since) => since,
                    None => earlier(self.clock.now(), LATELY),
                })),
                after: None,
                lines: None,
            },
        };
        let end = self.end(query.until);
        let mut page = EventPage::default();
        // If the last page ended within a record, that record is read again for its other lines.
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

/// Adds the record's wanted events to the page, from line `from` on. Returns where to continue if the page is full.
fn take(query: &EventQuery, record: &Record, from: usize, page: &mut EventPage) -> Option<String> {
    for (number, line) in text(record).lines().enumerate().skip(from) {
        if page.events.len() >= query.limit {
            return Some(format!("{}/{number}", record.id));
        }
        // Verifying reports lines that cannot be read.
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

/// Whether the event lies in the span: the first and last records hold others too.
fn is_within(line: &str, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let event = serde_json::from_str::<Event<'_>>(line);
    let time = event
        .ok()
        .and_then(|event| event.time.parse::<Timestamp>().ok());
    time.is_none_or(|time| {
        since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
    })
}
