//! Compares the records of a bundle with those of a table, kind by kind and in the order of their ids.

use std::collections::VecDeque;

use keyway_domain::ports::{Kind, Record, StoreError, TableReader};

/// How many records are read at a time. Few, because records that wait long may change meanwhile.
const PAGE: usize = 100;

/// The kind and the id of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
}

impl Name {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            kind: record.kind,
            id: record.id.clone(),
        }
    }
}

/// The records of one kind in the table, in the order of their ids.
pub(crate) struct TableSide<'a> {
    table: &'a dyn TableReader,
    kind: Kind,
    read: VecDeque<Record>,
    /// The last id that was read; `None` before the first page.
    after: Option<String>,
    is_over: bool,
}

impl<'a> TableSide<'a> {
    pub(crate) const fn new(table: &'a dyn TableReader, kind: Kind) -> Self {
        Self {
            table,
            kind,
            read: VecDeque::new(),
            after: None,
            is_over: false,
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The next record, if its id is before this one or there is none such: `None` for all that are left.
    pub(crate) async fn before(&mut self, id: Option<&str>) -> Result<Option<Record>, StoreError> {
        self.fill().await?;
        let is_before = |record: &Record| id.is_none_or(|id| record.id.as_str() < id);
        match self.read.front() {
            Some(record) if is_before(record) => Ok(self.read.pop_front()),
            _ => Ok(None),
        }
    }

    /// The record of this id. To be asked after all before it were taken.
    pub(crate) async fn at(&mut self, id: &str) -> Result<Option<Record>, StoreError> {
        self.fill().await?;
        match self.read.front() {
            Some(record) if record.id == id => Ok(self.read.pop_front()),
            _ => Ok(None),
        }
    }

    async fn fill(&mut self) -> Result<(), StoreError> {
        if !self.read.is_empty() || self.is_over {
            return Ok(());
        }
        let after = self.after.as_deref();
        let page = self.table.page(self.kind, "", after, PAGE).await?;
        self.is_over = !page.more;
        self.after = page.records.last().map(|record| record.id.clone());
        self.read = page.records.into();
        Ok(())
    }
}
