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
const WARM_UP: Duration = Duration::from_millis(300);

/// What a loader saw.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// The server's processor time for each request, in microseconds.
    pub(crate) cpu: f64,
}

/// Runs a loader against the server `pid` at `address`. Every answer must be 200.
pub(crate) fn load(
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
    let before = process::cpu_seconds(pid)?;
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["load", address, &connections.to_string(), &until])
        .arg(requests)
        .output()?;
    let used = process::cpu_seconds(pid)? - before;
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
    Ok(Load {
        per_second: number("per_second")?,
        p50: number("p50")?,
        p99: number("p99")?,
        cpu: used / number("all")? * 1e6,
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

fn read_requests(file: &str) -> Fallible<Vec<Vec<u8>>> {
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

struct Plan {
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
    let requests = read_requests(file)?;
    let begun = Instant::now();
    let plan = Rc::new(match until.strip_suffix("ms") {
        Some(time) => Plan {
            requests,
            limit: usize::MAX,
            measured_from: begun + WARM_UP,
            ends: begun + WARM_UP + Duration::from_millis(time.parse()?),
            sent: Cell::default(),
            milliseconds: RefCell::default(),
        },
        None => Plan {
            requests,
            limit: until.parse()?,
            measured_from: begun,
            ends: begun + Duration::from_secs(3600),
            sent: Cell::default(),
            milliseconds: RefCell::default(),
        },
    });
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

    let seconds = plan.measured_from.elapsed().as_secs_f64();
    let mut milliseconds = plan.milliseconds.take();
    milliseconds.sort_by(f64::total_cmp);
    let count = milliseconds.len();
    let at = |hundredth: usize| {
        milliseconds
            .get(count * hundredth / 100)
            .copied()
            .ok_or("no request was answered")
    };
    let seen = serde_json::json!({
        "per_second": count as f64 / seconds, "p50": at(50)?, "p99": at(99)?, "all": plan.sent.get(),
    });
    Ok(writeln!(std::io::stdout(), "{seen}")?)
}

async fn connection(address: String, plan: Rc<Plan>) -> Fallible<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(128 * 1024);
    loop {
        let number = plan.sent.get();
        let begun = Instant::now();
        if number >= plan.limit || begun >= plan.ends {
            return Ok(());
        }
        plan.sent.set(number + 1);
        stream
            .write_all(
                plan.requests
                    .get(number % plan.requests.len())
                    .ok_or("there are no requests")?,
            )
            .await?;
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
        if begun >= plan.measured_from {
            plan.milliseconds
                .borrow_mut()
                .push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
}
