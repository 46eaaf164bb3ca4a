//! Counts of answers by kind. A request adds to three numbers and takes no lock; readers calculate the families.

use std::collections::{BTreeMap, HashMap};
use std::iter::successors;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, Registry};

/// The name of KES's dialect.
pub(crate) const KES: &str = "kes";

/// A kind of answers. There are few: see the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) dialect: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) class: &'static str,
    pub(crate) status: u16,
}

/// How many lists hold the series. More lists are shorter.
const LISTS: usize = 64;

impl Kind {
    /// The number of its list: any number that differs between most kinds.
    fn list(&self) -> usize {
        let lengths = self.operation.len() * 7 + self.class.len() * 3 + self.dialect.len();
        (lengths + usize::from(self.status)) % LISTS
    }
}

/// The counters in which answers of one kind count.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) answered: IntCounter,
    pub(crate) outcomes: IntCounter,
    /// The counter of KES's metrics, for answers of its dialect.
    pub(crate) of_kes: Option<IntCounter>,
}

/// The answers of one kind.
struct Series {
    kind: Kind,
    counters: Counters,
    /// How many answers took how long, by [`Answers::bounds`]. The last ones took longer than every bound.
    buckets: Box<[AtomicU64]>,
    /// How long all of them took.
    nanoseconds: AtomicU64,
    /// How many are in the counters.
    counted: AtomicU64,
    next: Link,
}

/// A series that is added once and never removed, so that it is found without a lock.
type Link = OnceLock<Box<Series>>;

impl Series {
    fn total(&self) -> u64 {
        let counts = self.buckets.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The requests of this process that began and that were answered.
pub(crate) struct Answers {
    lists: [Link; LISTS],
    /// Requests that began: of KES's dialect, and of all others.
    began: [AtomicU64; 2],
    /// Upper bounds of the buckets, ascending, in nanoseconds: those of every family.
    bounds: Box<[u64]>,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Answers {
    /// No answers, to be counted in families with these bounds, in seconds.
    pub(crate) fn new<'b>(bounds: impl IntoIterator<Item = &'b f64>) -> Arc<Self> {
        let bounds = bounds.into_iter().copied();
        let mut bounds: Vec<u64> = bounds
            .map(|bound| nanoseconds(Duration::from_secs_f64(bound)))
            .collect();
        bounds.sort_unstable();
        bounds.dedup();
        Arc::new(Self {
            lists: [const { OnceLock::new() }; LISTS],
            began: [const { AtomicU64::new(0) }; 2],
            bounds: bounds.into(),
        })
    }

    fn began_in(&self, dialect: &str) -> &AtomicU64 {
        let [of_kes, others] = &self.began;
        if dialect == KES { of_kes } else { others }
    }

    pub(crate) fn begin(&self, dialect: &str) {
        self.began_in(dialect).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer. `counters` makes the counters of a kind that is new.
    pub(crate) fn count(&self, kind: Kind, took: Duration, counters: impl Fn(Kind) -> Counters) {
        let Some(mut link) = self.lists.get(kind.list()) else {
            return;
        };
        let series = loop {
            let series = link.get_or_init(|| {
                let buckets = (0..=self.bounds.len()).map(|_| AtomicU64::new(0));
                Box::new(Series {
                    kind,
                    counters: counters(kind),
                    buckets: buckets.collect(),
                    nanoseconds: AtomicU64::new(0),
                    counted: AtomicU64::new(0),
                    next: Link::new(),
                })
            });
            if series.kind == kind {
                break series;
            }
            link = &series.next;
        };
        let took = nanoseconds(took);
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        if let Some(count) = series.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        series.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = &Series> {
        let firsts = self.lists.iter().filter_map(OnceLock::get);
        firsts.flat_map(|first| successors(Some(&**first), |one| Some(&**one.next.get()?)))
    }

    /// Adds the answers since the last call to their counters. One caller at a time.
    pub(crate) fn catch_up(&self) {
        for series in self.all() {
            let total = series.total();
            let before = series.counted.swap(total, Ordering::Relaxed);
            let more = total.saturating_sub(before);
            let Counters {
                answered,
                outcomes,
                of_kes,
            } = &series.counters;
            for counter in [answered, outcomes].into_iter().chain(of_kes) {
                counter.inc_by(more);
            }
        }
    }

    /// How many requests have no answer yet: of KES's dialect, and of all others.
    pub(crate) fn active(&self) -> [u64; 2] {
        // The answers are read first, so that no request is answered that has not begun.
        let mut answered = [0, 0];
        let [answered_in_kes, answered_in_others] = &mut answered;
        for series in self.all() {
            let sum = if series.kind.dialect == KES {
                &mut *answered_in_kes
            } else {
                &mut *answered_in_others
            };
            *sum += series.total();
        }
        let [of_kes, others] = &self.began;
        let [answered_in_kes, answered_in_others] = answered;
        let active =
            |began: &AtomicU64, answered| began.load(Ordering::Acquire).saturating_sub(answered);
        [
            active(of_kes, answered_in_kes),
            active(others, answered_in_others),
        ]
    }
}

/// A family of histograms of how long requests took.
#[derive(Clone)]
pub(crate) struct Durations {
    answers: Arc<Answers>,
    desc: Desc,
    bounds: &'static [f64],
    /// Only KES's dialect, without labels.
    is_of_kes: bool,
}

impl Durations {
    /// A histogram for each dialect and operation.
    pub(crate) fn by_operation(
        registry: &Registry,
        answers: &Arc<Answers>,
        (name, help): (&str, &str),
        bounds: &'static [f64],
    ) -> prometheus::Result<Self> {
        let labels = ["dialect", "operation"].map(str::to_owned).to_vec();
        Self::new(registry, answers, (name, help), bounds, labels)
    }

    /// One histogram of KES's dialect.
    pub(crate) fn of_kes(
        registry: &Registry,
        answers: &Arc<Answers>,
        (name, help): (&str, &str),
        bounds: &'static [f64],
    ) -> prometheus::Result<Self> {
        Self::new(registry, answers, (name, help), bounds, Vec::new())
    }

    fn new(
        registry: &Registry,
        answers: &Arc<Answers>,
        (name, help): (&str, &str),
        bounds: &'static [f64],
        labels: Vec<String>,
    ) -> prometheus::Result<Self> {
        let durations = Self {
            answers: Arc::clone(answers),
            is_of_kes: labels.is_empty(),
            desc: Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?,
            bounds,
        };
        registry.register(Box::new(durations.clone()))?;
        Ok(durations)
    }

    fn metric(&self, labels: &[&str], all: &[&Series]) -> Metric {
        let mut counts = vec![0; self.answers.bounds.len() + 1];
        let mut nanoseconds = 0;
        for series in all {
            for (sum, count) in counts.iter_mut().zip(&series.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
            nanoseconds += series.nanoseconds.load(Ordering::Relaxed);
        }
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for bound in self.bounds {
            let bound_ns = self::nanoseconds(Duration::from_secs_f64(*bound));
            let within = self.answers.bounds.iter().zip(&counts);
            let within = within.filter(|(other, _)| **other <= bound_ns);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(within.map(|(_, count)| *count).sum());
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(Duration::from_nanos(nanoseconds).as_secs_f64());
        histogram.set_bucket(buckets);
        let pairs = self.desc.variable_labels.iter().zip(labels);
        let pairs = pairs.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        metric.set_histogram(histogram);
        metric
    }
}

impl Collector for Durations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = if self.is_of_kes {
            let all = self.answers.all().filter(|one| one.kind.dialect == KES);
            vec![self.metric(&[], &all.collect::<Vec<_>>())]
        } else {
            let mut by_labels: BTreeMap<[&str; 2], Vec<&Series>> = BTreeMap::new();
            for series in self.answers.all() {
                let labels = [series.kind.dialect, series.kind.operation];
                by_labels.entry(labels).or_default().push(series);
            }
            let metric = |(labels, all): ([&str; 2], Vec<&Series>)| self.metric(&labels, &all);
            by_labels.into_iter().map(metric).collect()
        };
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics);
        vec![family]
    }
}
