//! Latency at a fixed rate. Each request is due at a time of its own, and its latency begins then, whether or not the server
//! has answered the ones before: a server that stops for a while is charged for every request that had to wait.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use keyway_performance::{Bound, Measure, OpenLoop, OpenSide, Ratio, Samples, Target};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use crate::client::{answer_length, call, is_ok};
use crate::kes::{Pki, path_text, split};
use crate::load::{Load, Until, WARM_UP, load, read_requests, run_loader, write_requests};
use crate::process::Server;
use crate::report::Report;
use crate::{BARE, Fallible, OWN, ROUNDS, kes, median, speed};

const CONNECTIONS: usize = 32;
/// The highest rate is the median of so many turns.
const HIGHEST_TURNS: u32 = 3;
/// At half of the highest rate, the p99 should be at most so many times the bare server's.
const TARGET: f64 = 2.0;
const PERCENTILES: [f64; 13] = [
    50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99,
];
/// Latencies are nanoseconds with three digits, from a microsecond to a minute.
const SHORTEST: u64 = 1000;
const LONGEST: u64 = 60_000_000_000;

fn histogram() -> Fallible<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(SHORTEST, LONGEST, 3)?)
}

/// How requests are sent.
enum Over<'a> {
    Plain,
    /// TLS, with the certificate in this folder.
    Tls(&'a Path),
}

/// What is measured: an operation's requests, and a bare server that answers as Keyway does.
struct Operation<'a> {
    name: &'a str,
    over: Over<'a>,
    file: &'a Path,
    keyway: &'a Server,
    address: &'a str,
    bare: &'a Server,
}

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data");
    let (keyway, address) = kes::start(&data_dir)?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    println!(
        "\nLatency at a fixed rate, half of Keyway's highest, on {CONNECTIONS} connections; each request has a time at which \
         it is due, and its latency begins then. Medians of {ROUNDS} turns of {turn:?}."
    );
    let (file, answer) = (folder.path().join("requests"), folder.path().join("answer"));
    let (generate, decrypt) = speed::bodies(&keyway.address)?;
    for (name, bodies) in [("generate-data-key", generate), ("decrypt", decrypt)] {
        let bare = speed::prepare(&keyway.address, name, &bodies, &file, &answer)?;
        let operation = Operation {
            name,
            over: Over::Plain,
            file: &file,
            keyway: &keyway,
            address: &keyway.address,
            bare: &bare,
        };
        operation.measure(report, turn)?;
    }
    let address = address.to_string();
    for (name, bodies) in kes::Bodies::make(&address, &data_dir)?.operations() {
        if !["generate", "decrypt"].contains(&name) {
            continue;
        }
        let bare = kes::prepare(&address, &data_dir, name, bodies, &answer)?;
        write_requests(&file, &kes::requests(name, bodies))?;
        let operation = Operation {
            name,
            over: Over::Tls(&data_dir),
            file: &file,
            keyway: &keyway,
            address: &address,
            bare: &bare,
        };
        operation.measure(report, turn)?;
    }
    keyway.stop()
}

impl Operation<'_> {
    fn measure(&self, report: &mut Report, turn: Duration) -> Fallible<()> {
        let highest = (0..HIGHEST_TURNS)
            .map(|_| Ok(self.closed_loop(turn)?.per_second))
            .collect::<Fallible<Vec<f64>>>()?;
        let rate = (median(highest)? / 2.0).round();
        let mut turns: [Vec<Histogram<u64>>; 2] = Default::default();
        for number in 0..ROUNDS {
            let mut order = [(self.address, self.keyway), (&self.bare.address, self.bare)]
                .into_iter()
                .zip(&mut turns)
                .collect::<Vec<_>>();
            if number % 2 == 1 {
                order.reverse();
            }
            for ((address, server), turns) in order {
                turns.push(self.open_loop(address, rate, turn)?);
                server.forget_log()?;
            }
        }
        let [own, bare] = &turns;
        let sides = vec![side(OWN, own)?, side(BARE, bare)?];
        let ratios = own.iter().zip(bare).map(|(own, bare)| {
            let at = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99) as f64;
            at(own) / at(bare)
        });
        let ratio = Samples::of(ratios.collect());
        let transport = match self.over {
            Over::Plain => "HTTP/1.1",
            Over::Tls(_) => kes::transport("h1"),
        };
        report.open_loop(OpenLoop {
            operation: self.name.to_owned(),
            transport: transport.to_owned(),
            connections: CONNECTIONS,
            rate,
            sides,
            ratio: Ratio {
                of: Measure::P99,
                to: BARE.to_owned(),
                target: Some(Target::new(Bound::AtMost, TARGET, ratio.median)),
                ratio,
            },
        });
        Ok(())
    }

    /// As fast as the server answers.
    fn closed_loop(&self, turn: Duration) -> Fallible<Load> {
        let (pid, until) = (self.keyway.pid(), Until::Passed(turn));
        let done = match self.over {
            Over::Plain => load(self.address, pid, CONNECTIONS, until, self.file),
            Over::Tls(folder) => {
                let how = ["load-tls", "h1", path_text(folder)?];
                run_loader(&how, self.address, pid, CONNECTIONS, until, self.file)
            }
        };
        self.keyway.forget_log()?;
        done
    }

    /// Runs a loader of its own process at this rate.
    fn open_loop(&self, address: &str, rate: f64, turn: Duration) -> Fallible<Histogram<u64>> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["load-open", address, &rate.to_string()]);
        command.arg(turn.as_millis().to_string()).arg(self.file);
        if let Over::Tls(folder) = self.over {
            command.arg(folder);
        }
        let output = command.output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("the loader failed: {error}").into());
        }
        let counted: Vec<(u64, u64)> = serde_json::from_slice(&output.stdout)?;
        let mut histogram = histogram()?;
        for (value, count) in counted {
            histogram.record_n(value, count)?;
        }
        Ok(histogram)
    }
}

fn side(name: &str, turns: &[Histogram<u64>]) -> Fallible<OpenSide> {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let at = |quantile: f64| {
        let of = turns
            .iter()
            .map(|turn| milliseconds(turn.value_at_quantile(quantile)));
        Samples::of(of.collect())
    };
    let mut all = histogram()?;
    for turn in turns {
        all.add(turn)?;
    }
    let curve = PERCENTILES.map(|percentile| milliseconds(all.value_at_percentile(percentile)));
    Ok(OpenSide {
        name: name.to_owned(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        percentiles: PERCENTILES.to_vec(),
        milliseconds: Samples::of(curve.to_vec()).samples,
    })
}

/// The loader, a process of its own: `ADDRESS RATE MILLISECONDS FILE [FOLDER]`. With a folder, it speaks TLS and the file has
/// requests of KES's API. It prints latencies in nanoseconds and how often each occurred.
pub(crate) fn run(arguments: &[&str]) -> Fallible<()> {
    let (address, rate, time, file, folder) = match *arguments {
        [address, rate, time, file] => (address, rate, time, file, None),
        [address, rate, time, file, folder] => (address, rate, time, file, Some(folder)),
        _ => return Err("four or five arguments are needed".into()),
    };
    let requests = read_requests(file)?;
    let requests = match folder {
        None => requests,
        Some(_) => (requests.iter())
            .map(|request| over_http(request))
            .collect::<Fallible<_>>()?,
    };
    // Threads wake 50 us late otherwise. The kernel may not permit it, and then both sides are measured like that.
    if let Ok(mut slack) = OpenOptions::new()
        .write(true)
        .open("/proc/self/timerslack_ns")
    {
        drop(slack.write_all(b"1"));
    }
    let schedule = Arc::new(Schedule {
        requests,
        next: AtomicU32::new(0),
        rate: rate.parse()?,
        begins: Instant::now() + CONNECTING,
        time: WARM_UP + Duration::from_millis(time.parse()?),
    });
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            let tls = match folder {
                None => None,
                Some(folder) => {
                    let config = Arc::new(Pki(folder.into()).config("h1")?);
                    let name = ServerName::try_from("localhost")?;
                    Some(ClientConnection::new(config, name)?)
                }
            };
            let schedule = Arc::clone(&schedule);
            Ok(std::thread::spawn(move || {
                match tls {
                    None => schedule.follow(stream),
                    Some(tls) => schedule.follow(StreamOwned::new(tls, stream)),
                }
                .map_err(|error| error.to_string())
            }))
        })
        .collect::<Fallible<_>>()?;
    let mut all = histogram()?;
    for connection in connections {
        all.add(connection.join().map_err(|_| "a connection panicked")??)?;
    }
    let counted: Vec<(u64, u64)> = (all.iter_recorded())
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    Ok(writeln!(std::io::stdout(), "{}", json!(counted))?)
}

/// Connections are open before the first request is due.
const CONNECTING: Duration = Duration::from_millis(500);

/// A request of KES's API as bytes of HTTP/1.1.
fn over_http(request: &[u8]) -> Fallible<Vec<u8>> {
    let (path, body) = split(request)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Ok([head.as_bytes(), body.as_ref()].concat())
}

/// When each request is due. Whichever connection is free takes the next one.
struct Schedule {
    requests: Vec<Vec<u8>>,
    next: AtomicU32,
    rate: f64,
    begins: Instant,
    time: Duration,
}

impl Schedule {
    fn follow(&self, mut stream: impl Read + Write) -> Fallible<Histogram<u64>> {
        let (mut histogram, mut answer) = (histogram()?, vec![0; 128 * 1024]);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let after = Duration::from_secs_f64(f64::from(number) / self.rate);
            if after >= self.time {
                return Ok(histogram);
            }
            let due = self.begins + after;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let at = usize::try_from(number)? % self.requests.len().max(1);
            let request = self.requests.get(at).ok_or("there are no requests")?;
            exchange(&mut stream, request, &mut answer)?;
            let took = u64::try_from(due.elapsed().as_nanos())?;
            if after >= WARM_UP {
                histogram.record(took.clamp(SHORTEST, LONGEST))?;
            }
        }
    }
}

/// Sends a request, and reads its answer, which must be 200.
fn exchange(stream: &mut (impl Read + Write), request: &[u8], buffer: &mut [u8]) -> Fallible<()> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut length = 0;
    loop {
        let rest = buffer.get_mut(length..).unwrap_or_default();
        let read = stream.read(rest)?;
        if read == 0 {
            return Err("the connection was closed".into());
        }
        length += read;
        let answer = buffer.get(..length).unwrap_or_default();
        if answer_length(answer).is_some_and(|(_, whole)| length >= whole) {
            break;
        }
    }
    let answer = buffer.get(..length).unwrap_or_default();
    if is_ok(answer) {
        Ok(())
    } else {
        Err(format!("not answered with 200: {}", String::from_utf8_lossy(answer)).into())
    }
}
