//! The one way to read many records of a kind: page by page, in the order of their ids.

use crate::ports::{Consistency, Kind, Page, Record, StoreError, TableReader};
use crate::ranges::NameRange;

/// How many records are read at a time. A record may be 300 KiB.
const PAGE: usize = 500;

/// Reads the records of a kind whose ids are in some ranges. Reads pages only when records are requested.
pub(crate) struct Scan<'a, T: ?Sized> {
    table: &'a T,
    kind: Kind,
    /// In reverse order.
    ranges: Vec<NameRange>,
    after: Option<String>,
    limit: usize,
    /// The unread records of the last page, in reverse order.
    read: Vec<Found>,
}

/// A record that a scan found.
pub(crate) enum Found {
    /// A record that verified.
    Record(Record),
    /// A record that did not verify and was refused.
    Refused(Record),
}

impl<'a, T: TableReader + ?Sized> Scan<'a, T> {
    /// Reads every record.
    pub(crate) fn all(table: &'a T, kind: Kind) -> Self {
        Self::within(table, kind, NameRange::all(), "", None)
    }

    /// Reads the records whose ids begin with `prefix` and sort after `after`.
    pub(crate) fn named(table: &'a T, kind: Kind, prefix: &str, after: Option<String>) -> Self {
        Self::within(table, kind, NameRange::all(), prefix, after)
    }

    /// Reads the records in the ranges, which are [in order](crate::ranges::in_order), whose ids begin with `prefix`
    /// and sort after `after`.
    pub(crate) fn within(
        table: &'a T,
        kind: Kind,
        ranges: Vec<NameRange>,
        prefix: &str,
        after: Option<String>,
    ) -> Self {
        let mut ranges: Vec<NameRange> = (ranges.into_iter())
            .filter_map(|range| range.narrowed(prefix))
            .filter(|range| !after.as_ref().is_some_and(|after| range.is_before(after)))
            .collect();
        ranges.reverse();
        Self {
            table,
            kind,
            ranges,
            after,
            limit: PAGE,
            read: Vec::new(),
        }
    }

    /// Reads this many records at a time: 1 to 1000.
    pub(crate) fn by(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Up to `limit` (1 to 1000) records of one range; `None` when no range is left.
    pub(crate) async fn page(&mut self, limit: usize) -> Result<Option<Page>, StoreError> {
        let Some(range) = self.ranges.last() else {
            return Ok(None);
        };
        let page = match range {
            NameRange::One(name) => {
                let found = self.table.get(self.kind, name, Consistency::Strong).await?;
                Page {
                    records: found.into_iter().collect(),
                    ..Page::default()
                }
            }
            NameRange::Beginning(beginning) => {
                let after = self.after.as_deref();
                self.table.page(self.kind, beginning, after, limit).await?
            }
        };
        if page.more {
            self.after = page.records.last().map(|record| record.id.clone());
        } else {
            self.ranges.pop();
            self.after = None;
        }
        Ok(Some(page))
    }

    /// Whether there are pages left.
    pub(crate) fn has_more(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// The next record. A page's refused records come first.
    pub(crate) async fn found(&mut self) -> Result<Option<Found>, StoreError> {
        while self.read.is_empty() {
            let Some(page) = self.page(self.limit).await? else {
                return Ok(None);
            };
            // `read` is in reverse order.
            let records = page.records.into_iter().map(Found::Record);
            let refused = page.refused.into_iter().map(Found::Refused);
            self.read = refused.chain(records).rev().collect();
        }
        Ok(self.read.pop())
    }

    /// The next record that was not refused.
    pub(crate) async fn record(&mut self) -> Result<Option<Record>, StoreError> {
        loop {
            match self.found().await? {
                Some(Found::Record(record)) => return Ok(Some(record)),
                Some(Found::Refused(_)) => {}
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::ports::Revision;

    /// A table of some ids, one of which is refused. Records the calls.
    struct Ids {
        ids: &'static [&'static str],
        refused: &'static str,
        asked: Mutex<Vec<String>>,
    }

    impl Ids {
        fn new(ids: &'static [&'static str], refused: &'static str) -> Self {
            Self {
                ids,
                refused,
                asked: Mutex::default(),
            }
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn record(id: &str) -> Record {
        Record {
            kind: Kind::Key,
            id: id.to_owned(),
            revision: Revision([0; 16]),
            value: Vec::new(),
            expires_at: None,
        }
    }

    #[async_trait]
    impl TableReader for Ids {
        async fn get(
            &self,
            _: Kind,
            id: &str,
            consistency: Consistency,
        ) -> Result<Option<Record>, StoreError> {
            assert_eq!(consistency, Consistency::Strong);
            self.asked.lock().unwrap().push(format!("get {id}"));
            Ok(self.ids.contains(&id).then(|| record(id)))
        }

        async fn count(&self, _: Kind, _: &str) -> Result<u64, StoreError> {
            Ok(0)
        }

        async fn page(
            &self,
            _: Kind,
            prefix: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Page, StoreError> {
            let asked = format!("{limit} of {prefix}* after {after:?}");
            self.asked.lock().unwrap().push(asked);
            let follows =
                |id: &&&str| id.starts_with(prefix) && after.is_none_or(|after| **id > after);
            let mut following = self.ids.iter().filter(follows);
            let mut page = Page::default();
            for id in following.by_ref().take(limit) {
                if *id == self.refused {
                    page.refused.push(record(id));
                } else {
                    page.records.push(record(id));
                }
            }
            page.more = following.next().is_some();
            Ok(page)
        }
    }

    async fn records(mut scan: Scan<'_, Ids>) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(record) = scan.record().await.unwrap() {
            ids.push(record.id);
        }
        ids
    }

    #[tokio::test]
    async fn scan_of_all_goes_from_page_to_page_until_there_are_no_more() {
        let table = Ids::new(&["a", "b", "c"], "");
        assert_eq!(
            records(Scan::all(&table, Kind::Key).by(2)).await,
            ["a", "b", "c"]
        );
        assert_eq!(
            table.asked(),
            ["2 of * after None", "2 of * after Some(\"b\")"]
        );
    }

    #[tokio::test]
    async fn scan_of_ranges_reads_these_alone() {
        let table = Ids::new(&["a", "ba", "bb", "c", "d"], "");
        let one = |id: &str| NameRange::One(id.to_owned());
        let ranges = vec![one("a"), NameRange::Beginning("b".to_owned()), one("d")];
        let scan = Scan::within(&table, Kind::Key, ranges, "", Some("a".to_owned()));
        assert_eq!(records(scan).await, ["ba", "bb", "d"]);
        assert_eq!(table.asked(), ["500 of b* after Some(\"a\")", "get d"]);
    }

    #[tokio::test]
    async fn scan_dropped_reads_no_further_page() {
        let table = Ids::new(&["a", "b", "c"], "");
        let mut scan = Scan::all(&table, Kind::Key).by(2);
        for _ in 0..2 {
            assert!(scan.record().await.unwrap().is_some());
        }
        assert!(scan.has_more());
        assert_eq!(table.asked().len(), 1);
    }

    #[tokio::test]
    async fn scan_refused_record_is_found_and_is_no_record() {
        let table = Ids::new(&["a", "b", "c"], "b");
        assert_eq!(records(Scan::all(&table, Kind::Key)).await, ["a", "c"]);
        let mut scan = Scan::all(&table, Kind::Key);
        let mut found = Vec::new();
        while let Some(next) = scan.found().await.unwrap() {
            found.push(match next {
                Found::Record(record) => (record.id, "obeyed"),
                Found::Refused(record) => (record.id, "refused"),
            });
        }
        let expected = [("b", "refused"), ("a", "obeyed"), ("c", "obeyed")];
        assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what)));
    }
}
