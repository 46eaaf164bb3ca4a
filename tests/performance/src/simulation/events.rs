//! One function under requests at random times: which environment takes each request, what it reads and writes besides, and
//! what Lambda refuses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::quotas::{REQUESTS_AN_ENVIRONMENT, SCALING, SCALING_SECONDS};

/// How the function behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    /// The mean time for which a request holds a warm environment, in seconds.
    pub(super) held: f64,
    /// What a new environment takes more.
    pub(super) start: f64,
    /// Reads of the table that a request waits for.
    pub(super) read: f64,
    /// A write of the audit log that a request waits for.
    pub(super) write: f64,
    /// The state TTL.
    pub(super) ttl: f64,
    /// The oldest age of an audit event that waits for others.
    pub(super) batch_age: f64,
    /// The bytes of an audit record are `record + event * events`.
    pub(super) record: f64,
    pub(super) event: f64,
}

/// Events of an audit record at most.
const BATCH: u32 = 400;
/// The spread of the time for which requests hold an environment: the standard deviation of its logarithm.
const SPREAD: f64 = 0.4;
/// The units of an audit record are kilobytes.
const UNIT_BYTES: f64 = 1024.0;

/// What is asked of the function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) rate: f64,
    pub(super) seconds: f64,
    /// What is before this time is not counted.
    pub(super) counted_from: f64,
    /// Keys. The n-th is asked for with a probability in proportion to 1/n.
    pub(super) keys: usize,
    /// Environments that run already and are idle.
    pub(super) warm: usize,
    /// Whether the allowance for scaling is that of a function without requests until now.
    pub(super) is_burst: bool,
    /// The account's quota.
    pub(super) concurrency: f64,
}

/// What happened in the time that counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) seconds: f64,
    pub(super) requests: f64,
    pub(super) refused: f64,
    pub(super) starts: f64,
    /// Environments that took requests at the same time, at most.
    pub(super) most_busy: f64,
    /// New environments in the worst second.
    pub(super) most_starts: f64,
    pub(super) read_units: f64,
    /// Reads of the service's configuration, a record that all environments share.
    pub(super) configuration_reads: f64,
    /// Reads of the key that is asked for most.
    pub(super) hottest_reads: f64,
    pub(super) write_units: f64,
    pub(super) records: f64,
    pub(super) record_bytes: f64,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Outcome {
    /// The latency, in milliseconds, that this share of the requests does not exceed.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        // A place in a list that is far shorter than the numbers that f64 holds exactly.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "see above"
        )]
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).copied().unwrap_or_default()
    }

    pub(super) fn each_second(&self, count: f64) -> f64 {
        count / self.seconds
    }
}

/// Random numbers from a seed (SplitMix64): the same run gives the same figures.
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    /// The time to the next of independent events at this rate.
    fn pause(&mut self, rate: f64) -> f64 {
        -self.share().ln() / rate
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

/// An allowance that time refills up to a limit.
struct Allowance {
    left: f64,
    limit: f64,
    each_second: f64,
    at: f64,
}

impl Allowance {
    fn take(&mut self, now: f64) -> bool {
        self.left = (self.left + (now - self.at) * self.each_second).min(self.limit);
        self.at = now;
        let is_there = self.left >= 1.0;
        if is_there {
            self.left -= 1.0;
        }
        is_there
    }
}

struct Environment {
    /// When it read the configuration and the caller's access key.
    read_at: f64,
    /// When it read each key.
    keys_at: Vec<f64>,
    waiting: u32,
    waiting_since: f64,
}

impl Environment {
    fn new(keys: usize) -> Self {
        Self {
            read_at: f64::NEG_INFINITY,
            keys_at: vec![f64::NEG_INFINITY; keys],
            waiting: 0,
            waiting_since: 0.0,
        }
    }
}

/// A time, in nanoseconds, and an environment that is free then.
type Free = Reverse<(u64, usize)>;

struct Function<'a> {
    behaviour: &'a Behaviour,
    load: &'a Load,
    random: Random,
    environments: Vec<Environment>,
    busy: BinaryHeap<Free>,
    idle: Vec<usize>,
    /// The probability that a request is for one of the first keys, for each number of keys.
    keys: Vec<f64>,
    outcome: Outcome,
}

/// Runs the function; the same arguments give the same outcome.
pub(super) fn run(behaviour: &Behaviour, load: &Load) -> Outcome {
    let weights = (1..=load.keys).map(|n| 1.0 / n as f64);
    let whole: f64 = weights.clone().sum();
    let keys = weights.scan(0.0, |sum, weight| {
        *sum += weight / whole;
        Some(*sum)
    });
    let mut function = Function {
        behaviour,
        load,
        random: Random(load.rate.to_bits()),
        environments: (0..load.warm)
            .map(|_| Environment::new(load.keys))
            .collect(),
        busy: BinaryHeap::new(),
        idle: (0..load.warm).collect(),
        keys: keys.collect(),
        outcome: Outcome::default(),
    };
    function.run();
    function.outcome
}

impl Function<'_> {
    fn run(&mut self) {
        let load = *self.load;
        let allowed = if load.is_burst {
            SCALING
        } else {
            f64::INFINITY
        };
        let mut scaling = Allowance {
            left: allowed,
            limit: allowed,
            each_second: SCALING / SCALING_SECONDS,
            at: 0.0,
        };
        let (mut now, mut second, mut starts) = (0.0, 0.0_f64, 0.0);
        let (mut taken, mut this_second) = (0.0, 0.0_f64);
        loop {
            now += self.random.pause(load.rate);
            if now >= load.seconds {
                break;
            }
            let counts = now >= load.counted_from;
            if now.floor() > second {
                (second, starts, taken) = (now.floor(), 0.0, 0.0);
                this_second = 0.0;
            }
            self.outcome.requests += f64::from(u8::from(counts));
            // Both limits of requests hold for each second: that of the quota, and that of scaling.
            let scaled = if load.is_burst {
                SCALING + second * SCALING / SCALING_SECONDS
            } else {
                f64::INFINITY
            };
            let most = load.concurrency.min(scaled) * REQUESTS_AN_ENVIRONMENT;
            self.release(now);
            let environment = if taken >= most {
                None
            } else if let Some(idle) = self.idle.pop() {
                Some((idle, false))
            } else if (self.busy.len() as f64) < load.concurrency && scaling.take(now) {
                starts += 1.0;
                this_second = this_second.max(starts);
                self.environments.push(Environment::new(load.keys));
                Some((self.environments.len() - 1, true))
            } else {
                None
            };
            let Some((environment, is_new)) = environment else {
                self.outcome.refused += f64::from(u8::from(counts));
                continue;
            };
            taken += 1.0;
            self.serve(environment, is_new, now, counts);
            self.outcome.most_starts = self.outcome.most_starts.max(this_second);
        }
        self.outcome.seconds = load.seconds - load.counted_from;
        self.outcome.latencies.sort_by(f64::total_cmp);
    }

    /// Environments whose request has ended become idle. The last one to end takes the next request.
    fn release(&mut self, now: f64) {
        while let Some(Reverse((free_at, environment))) = self.busy.peek().copied() {
            if free_at > nanoseconds(now) {
                break;
            }
            self.busy.pop();
            self.idle.push(environment);
        }
    }

    fn serve(&mut self, environment: usize, is_new: bool, now: f64, counts: bool) {
        let behaviour = self.behaviour;
        let wanted = self.random.share();
        let key = self.keys.partition_point(|sum| *sum < wanted);
        let key = key.min(self.keys.len().saturating_sub(1));
        let spread = (SPREAD * self.random.normal() - SPREAD * SPREAD / 2.0).exp();
        let mut took = behaviour.held * spread;
        let mut none = Outcome::default();
        let outcome = if counts { &mut self.outcome } else { &mut none };
        let Some(state) = self.environments.get_mut(environment) else {
            return;
        };
        if is_new {
            took += behaviour.start;
            outcome.starts += 1.0;
        }
        let mut reads = 0.0;
        if now - state.read_at > behaviour.ttl {
            state.read_at = now;
            outcome.configuration_reads += 1.0;
            // The configuration and the caller's access key.
            reads += 2.0;
        }
        if let Some(read_at) = state.keys_at.get_mut(key)
            && now - *read_at > behaviour.ttl
        {
            *read_at = now;
            outcome.hottest_reads += f64::from(u8::from(key == 0));
            reads += 1.0;
        }
        outcome.read_units += reads;
        if reads > 0.0 {
            // They are read at the same time.
            took += behaviour.read;
        }
        let is_due = state.waiting > 0 && now - state.waiting_since >= behaviour.batch_age;
        if state.waiting == 0 {
            state.waiting_since = now;
        }
        state.waiting += 1;
        if is_due || state.waiting >= BATCH {
            let bytes = behaviour.record + behaviour.event * f64::from(state.waiting);
            outcome.records += 1.0;
            outcome.record_bytes += bytes;
            outcome.write_units += (bytes / UNIT_BYTES).ceil();
            took += behaviour.write;
            state.waiting = 0;
        }
        if counts {
            outcome.latencies.push(took * 1e3);
        }
        self.busy
            .push(Reverse((nanoseconds(now + took), environment)));
        if counts {
            let busy = self.busy.len() as f64;
            self.outcome.most_busy = self.outcome.most_busy.max(busy);
        }
    }
}

/// Whole numbers have an order, which the heap needs.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a simulation ends after minutes"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviour() -> Behaviour {
        Behaviour {
            held: 0.005,
            start: 0.2,
            read: 0.004,
            write: 0.006,
            ttl: 5.0,
            batch_age: 10.0,
            record: 500.0,
            event: 60.0,
        }
    }

    fn load(rate: f64) -> Load {
        Load {
            rate,
            seconds: 40.0,
            counted_from: 20.0,
            keys: 1,
            warm: 1,
            is_burst: false,
            concurrency: 1000.0,
        }
    }

    #[test]
    fn environments_in_use_follow_littles_law() {
        let outcome = run(&behaviour(), &load(4000.0));
        // 4,000 a second, 5 ms each: 20 on average.
        assert!((20.0..60.0).contains(&outcome.most_busy), "{outcome:?}");
        assert_eq!(outcome.refused, 0.0);
        let p50 = outcome.percentile(0.5);
        assert!((4.0..6.0).contains(&p50), "{p50}");
    }

    #[test]
    fn one_environment_reads_three_records_in_each_state_ttl() {
        let behaviour = Behaviour {
            held: 1e-6,
            read: 0.0,
            ..behaviour()
        };
        let outcome = run(&behaviour, &load(33.0));
        let each_ttl = outcome.each_second(outcome.configuration_reads) * 5.0;
        assert!((0.9..1.1).contains(&each_ttl), "{each_ttl}");
        assert_eq!(outcome.read_units, 3.0 * outcome.configuration_reads);
        assert_eq!(outcome.hottest_reads, outcome.configuration_reads);
    }

    #[test]
    fn burst_is_refused_beyond_what_scaling_allows() {
        let burst = Load {
            seconds: 10.0,
            counted_from: 0.0,
            warm: 0,
            is_burst: true,
            concurrency: 100_000.0,
            ..load(50_000.0)
        };
        let outcome = run(&behaviour(), &burst);
        // From 10,000 a second, 1,000 more each second: 145,000 of 500,000.
        let admitted = outcome.requests - outcome.refused;
        assert!((100_000.0..=145_000.0).contains(&admitted), "{admitted}");
        assert!(outcome.starts <= 2000.0, "{}", outcome.starts);
    }

    #[test]
    fn quota_limits_requests_to_ten_a_second_for_each_environment() {
        let quota = Load {
            concurrency: 100.0,
            ..load(2000.0)
        };
        let outcome = run(&behaviour(), &quota);
        let refused = outcome.refused / outcome.requests;
        assert!((0.45..0.55).contains(&refused), "{refused}");
    }

    #[test]
    fn same_seed_gives_the_same_outcome() {
        let [one, two] = [(), ()].map(|()| run(&behaviour(), &load(100.0)));
        assert_eq!(format!("{one:?}"), format!("{two:?}"));
    }
}
