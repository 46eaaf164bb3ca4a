//! Counts and times every request.

use futures_util::future::{FutureExt, ready};
use keyway_http::{Answered, Observer, Outcome};

use crate::Metrics;
use crate::answers::{Counters, KES, Kind};
use crate::families::Requests;

/// The outcomes of answers.
pub(crate) const SUCCESS: &str = "success";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const FAILED: &str = "failed";

impl Metrics {
    fn told(&self, told: &Answered<'_>) {
        let kind = Kind {
            dialect: told.dialect,
            operation: told.operation.name,
            class: told.error.unwrap_or("success"),
            status: told.status.as_u16(),
        };
        self.answers
            .count(kind, told.elapsed, |kind| self.counters(kind));
    }

    fn counters(&self, kind: Kind) -> Counters {
        let Kind {
            dialect,
            operation,
            class,
            status,
        } = kind;
        let (outcome, of_kes) = match status {
            ..400 => (SUCCESS, &self.of_kes.success),
            400..500 => (REFUSED, &self.of_kes.error),
            _ => (FAILED, &self.of_kes.failure),
        };
        let Requests {
            answered, outcomes, ..
        } = &self.requests;
        Counters {
            answered: answered.with_label_values(&[dialect, operation, class]),
            outcomes: outcomes.with_label_values(&[outcome]),
            of_kes: (dialect == KES).then(|| of_kes.with_label_values(&[&status.to_string()])),
        }
    }
}

impl Observer for Metrics {
    fn began(&self, dialect: &'static str) {
        self.answers.begin(dialect);
    }

    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        self.told(told);
        ready(Ok(())).left_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        self.told(told);
    }
}
