//! The loader, a process of its own: requests from a file over keep-alive connections, one at a time on
//! each. One thread and no HTTP library, so that it leaves the machine to the server.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::client::{answer_length, is_ok};
use crate::{Fallible, process};

/// When the loader stops.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this time, requests taken in turn.
    Passed(Duration),
    /// After this many requests, taken in turn.
    Sent(usize),
}

/// Not measured: connections are opened and caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// The results of a loader.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// The server's processor time for each request outside of the kernel, in microseconds.
    pub(crate) user: f64,
    /// The same within the kernel.
    pub(crate) system: f64,
}

/// Runs a loader against the server `pid` at `address`. Every answer must be 200.
pub(crate) fn load(
    address: &str,
    pid: u32,
    connections: usize,
    until: Until,
    requests: &Path,
) -> Fallible<Load> {
    run_loader(&["load"], address, pid, connections, until, requests)
}

/// As [`load`]; these first arguments choose the loader.
pub(crate) fn run_loader(
    how: &[&str],
    address: &str,
    pid: u32,
    connections: usize,
    until: Until,
    requests: &Path,
) -> Fallible<Load> {
    let until = match until {
        Until::Passed(time) => format!("{}ms", time.as_millis()),
        Until::Sent(count) => count.to_string(),
    };
    let before = process::processor_seconds(pid)?;
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(how)
        .args([address, &connections.to_string(), &until])
        .arg(requests)
        .output()?;
    let after = process::processor_seconds(pid)?;
    if !output.status.success() {
        return Err(format!(
            "the loader failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let seen: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| {
        seen.get(name)
            .and_then(Value::as_f64)
            .ok_or("the loader said something else")
    };
    let all = number("all")?;
    let [user, system] = {
        let ([user, system], [user_before, system_before]) = (after, before);
        [user - user_before, system - system_before].map(|seconds| seconds / all * 1e6)
    };
    Ok(Load {
        per_second: number("per_second")?,
        p50: number("p50")?,
        p99: number("p99")?,
        user,
        system,
    })
}

/// Writes requests to a file, for loaders to send.
pub(crate) fn write_requests(file: &Path, requests: &[Vec<u8>]) -> Fallible<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for request in requests {
        out.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
        out.write_all(request)?;
    }
    Ok(out.flush()?)
}

pub(crate) fn read_requests(file: &str) -> Fallible<Vec<Vec<u8>>> {
    let bytes = std::fs::read(file)?;
    let mut rest = bytes.as_slice();
    let mut requests = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (request, after) = after
            .split_at_checked(length)
            .ok_or("a request is cut short")?;
        requests.push(request.to_vec());
        rest = after;
    }
    Ok(requests)
}

/// What the connections of a loader share.
pub(crate) struct Plan {
    requests: Vec<Vec<u8>>,
    limit: usize,
    measured_from: Instant,
    ends: Instant,
    sent: Cell<usize>,
    milliseconds: RefCell<Vec<f64>>,
}

/// The process: `ADDRESS CONNECTIONS (COUNT | TIMEms) FILE`.
pub(crate) fn run(arguments: &[&str]) -> Fallible<()> {
    let &[address, connections, until, file] = arguments else {
        return Err("four arguments are needed".into());
    };
    let plan = Rc::new(Plan::read(until, file)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let running: Vec<_> = (0..connections.parse::<usize>()?)
        .map(|_| local.spawn_local(connection(address.to_owned(), Rc::clone(&plan))))
        .collect();
    runtime.block_on(local.run_until(async {
        for connection in running {
            connection.await?.map_err(|error| error.to_string())?;
        }
        Fallible::Ok(())
    }))?;

    plan.tell()
}

impl Plan {
    pub(crate) fn read(until: &str, file: &str) -> Fallible<Self> {
        let requests = read_requests(file)?;
        let begun = Instant::now();
        let (limit, measured_from, time) = match until.strip_suffix("ms") {
            Some(time) => (
                usize::MAX,
                begun + WARM_UP,
                WARM_UP + Duration::from_millis(time.parse()?),
            ),
            None => (until.parse()?, begun, Duration::from_secs(3600)),
        };
        Ok(Self {
            requests,
            limit,
            measured_from,
            ends: begun + time,
            sent: Cell::default(),
            milliseconds: RefCell::default(),
        })
    }

    /// The next request and its time of sending, which is now; `None` when all is done.
    pub(crate) fn next(&self) -> Fallible<Option<(&[u8], Instant)>> {
        let (number, begun) = (self.sent.get(), Instant::now());
        if number >= self.limit || begun >= self.ends {
            return Ok(None);
        }
        self.sent.set(number + 1);
        let request = self.requests.get(number % self.requests.len());
        Ok(Some((request.ok_or("there are no requests")?, begun)))
    }

    /// Records the answer of a request that was sent at this time.
    pub(crate) fn answered(&self, begun: Instant) {
        if begun >= self.measured_from {
            let took = begun.elapsed().as_secs_f64() * 1e3;
            self.milliseconds.borrow_mut().push(took);
        }
    }

    /// Prints the results.
    pub(crate) fn tell(&self) -> Fallible<()> {
        let seconds = self.measured_from.elapsed().as_secs_f64();
        let mut milliseconds = self.milliseconds.take();
        milliseconds.sort_by(f64::total_cmp);
        let count = milliseconds.len();
        let at = |hundredth: usize| {
            milliseconds
                .get(count * hundredth / 100)
                .copied()
                .ok_or("no request was answered")
        };
        let seen = serde_json::json!({
            "per_second": count as f64 / seconds, "p50": at(50)?, "p99": at(99)?, "all": self.sent.get(),
        });
        Ok(writeln!(std::io::stdout(), "{seen}")?)
    }
}

async fn connection(address: String, plan: Rc<Plan>) -> Fallible<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(128 * 1024);
    while let Some((request, begun)) = plan.next()? {
        stream.write_all(request).await?;
        answer.clear();
        while answer_length(&answer).is_none_or(|(_, whole)| answer.len() < whole) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
        if !is_ok(&answer) {
            return Err(format!(
                "not answered with 200: {}",
                String::from_utf8_lossy(&answer)
            )
            .into());
        }
        plan.answered(begun);
    }
    Ok(())
}
