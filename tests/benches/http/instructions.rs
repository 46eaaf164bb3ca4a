//! Instructions of each hot request, counted by valgrind's callgrind: unlike rates, they do not depend on how busy the machine
//! is. They are compared with `instructions.json`, beside this file.
//!
//! Each operation is sent `SOME` times in each of several rounds, over one connection that is open already, and the round with
//! the fewest instructions counts. A round is short enough to end before the audit log writes it to the table: how many requests
//! share such a write depends on the machine, so it is in no count. Calls of the kernel are not counted. Callgrind's processor
//! has AES instructions and no SHA instructions, so hashing takes a larger part than it does on most machines.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_performance::PROFILE;
use keyway_tests::Signer;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::Fallible;
use crate::aws::{Bodies, aws_signed};
use crate::client::{call, exchange, exchange_over, is_ok, signed, signed_by};
use crate::kes::{ADMIN, Pki, Sender, connect, split};
use crate::process::{Keyway, Log, ROOT_ACCESS_KEY, ROOT_SECRET_KEY, Server};

/// Requests of a round.
const SOME: usize = 16;
const ROUNDS: usize = 5;
/// The audit log writes what waits for the table within this time.
const TABLE_WRITE: Duration = Duration::from_millis(400);
/// Different requests of one operation.
const DIFFERENT: usize = 16;
/// The largest relative difference between a count and the committed one.
const TOLERANCE: f64 = 0.05;
/// How many crates have a row in the table; the others share one.
const ROWS: usize = 24;
const COMMITTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/http/instructions.json"
);

/// Instructions of one request, by crate or library.
type Counts = BTreeMap<String, f64>;

/// How the requests of an operation are sent.
#[derive(Clone, Copy)]
enum Over {
    Plain,
    MutualTls(&'static str),
}

/// A connection that stays open.
enum Connection {
    Plain(TcpStream),
    MutualTls(Sender),
}

/// The requests of an operation.
struct Operation {
    name: &'static str,
    over: Over,
    requests: Vec<Vec<u8>>,
}

/// `BINARY VALGRIND [write | profile OPERATION]`: the release binary with its symbols, and the program. `write` replaces the
/// committed counts, `profile` prints the functions of one operation.
pub(crate) fn run(arguments: &[&str]) -> Fallible<()> {
    let &[binary, valgrind, ref rest @ ..] = arguments else {
        return Err("a binary and valgrind are needed".into());
    };
    let server = Counted::start(Path::new(binary), Path::new(valgrind))?;
    let profiled = match rest {
        ["profile", name] => Some(*name),
        _ => None,
    };
    let mut counted = Vec::new();
    for operation in server.operations()? {
        if profiled.is_none_or(|name| name == operation.name) {
            counted.push((
                operation.name,
                server.count(&operation, profiled.is_some())?,
            ));
        }
    }
    server.server.stop()?;
    if profiled.is_some() {
        print_functions(&counted);
        return Ok(());
    }
    print_table(&counted);
    if rest == ["write"] {
        let totals: BTreeMap<_, _> = counted
            .iter()
            .map(|(name, counts)| (*name, total(counts).round()))
            .collect();
        std::fs::write(COMMITTED, serde_json::to_string_pretty(&totals)? + "\n")?;
        return write_profile(&counted);
    }
    compare(&counted)
}

/// Writes what docs/performance.md shows: the counts of each operation by crate, without those below a thousandth.
fn write_profile(counted: &[(&str, Counts)]) -> Fallible<()> {
    let profile: BTreeMap<_, BTreeMap<_, _>> = (counted.iter())
        .map(|(name, counts)| {
            let least = total(counts) / 1000.0;
            let (many, few): (Vec<_>, Vec<_>) =
                counts.iter().partition(|(_, count)| **count >= least);
            let few: f64 = few.into_iter().map(|(_, count)| count).sum();
            let many = many.into_iter();
            let many = many.map(|(name, count)| (name.as_str(), count.round()));
            (
                *name,
                many.chain([("crates below 0.1 %", few.round())]).collect(),
            )
        })
        .collect();
    let file = keyway_tests::project().join(PROFILE);
    Ok(std::fs::write(
        file,
        serde_json::to_string_pretty(&profile)? + "\n",
    )?)
}

fn total(counts: &Counts) -> f64 {
    counts.values().sum()
}

/// The server under callgrind, and the runtime of its clients.
struct Counted {
    runtime: Runtime,
    local: LocalSet,
    folder: tempfile::TempDir,
    server: Server,
    vgdb: PathBuf,
}

impl Counted {
    fn start(binary: &Path, valgrind: &Path) -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(valgrind);
        command.arg("--tool=callgrind");
        let mut out = std::ffi::OsString::from("--callgrind-out-file=");
        out.push(folder.path().join("counts"));
        // One thread: with several, chance decides which one takes a request.
        command
            .arg(out)
            .arg(binary)
            .env("TOKIO_WORKER_THREADS", "1");
        let kes = ["--kes-listen", "127.0.0.1:0", "--kes-admin-identity", ADMIN];
        let server = Keyway::start_command(command, &folder.path().join("data"), &kes, Log::File)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            local: LocalSet::new(),
            vgdb: valgrind.with_file_name("vgdb"),
            folder,
            server,
        })
    }

    /// Every operation, with requests that the server answers.
    fn operations(&self) -> Fallible<Vec<Operation>> {
        let address = &self.server.address;
        call(address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
        let mut operations = self.of_rustfs()?;
        operations.extend(self.of_aws()?);
        operations.extend(self.of_kes()?);
        let signer = Signer::new(ROOT_ACCESS_KEY, ROOT_SECRET_KEY);
        let by = |signer: &Signer, method: &str, path: &str, body: &str| {
            signed_by(signer, address, method, path, body)
        };
        let s3 = signer.clone().for_service("s3").declaring_hash();
        let encryption = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>bench</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
        for (path, body) in [("/bench", ""), ("/bench?encryption=", encryption)] {
            let answer = exchange(address, &by(&s3, "PUT", path, body)?)?;
            if !is_ok(&answer) {
                return Err(format!("{path}: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
        let sts = signer.clone().for_service("sts");
        let who = "Action=GetCallerIdentity&Version=2011-06-15";
        for (name, request) in [
            (
                "minio key/status",
                by(&signer, "GET", "/minio/kms/v1/key/status?key-id=bench", "")?,
            ),
            (
                "s3 GetBucketEncryption",
                by(&s3, "GET", "/bench?encryption=", "")?,
            ),
            ("sts GetCallerIdentity", by(&sts, "POST", "/", who)?),
        ] {
            operations.push(Operation {
                name,
                over: Over::Plain,
                requests: vec![request],
            });
        }
        Ok(operations)
    }

    fn of_rustfs(&self) -> Fallible<Vec<Operation>> {
        let address = &self.server.address;
        let mut bodies = [Vec::new(), Vec::new(), Vec::new()];
        for n in 0..DIFFERENT {
            let context = json!({ "bucket": "backups", "object": format!("2026/03/{n:04}") });
            let generate =
                json!({ "key_id": "bench", "key_spec": "AES_256", "encryption_context": context });
            let made = call(address, "POST", "/generate-data-key", &generate.to_string())?;
            let (plaintext, blob) = (made.get("plaintext_key"), made.get("ciphertext_blob"));
            let encrypt =
                json!({ "key_id": "bench", "plaintext": plaintext, "encryption_context": context });
            let decrypt = json!({ "ciphertext_blob": blob, "encryption_context": context });
            for (all, body) in bodies.iter_mut().zip([generate, encrypt, decrypt]) {
                all.push(body.to_string());
            }
        }
        let names = [
            "rustfs generate-data-key",
            "rustfs encrypt",
            "rustfs decrypt",
        ];
        names
            .into_iter()
            .zip(bodies)
            .map(|(name, bodies)| {
                let path = name.replace("rustfs ", "/");
                let sign = |body: &String| signed(address, "POST", &path, body);
                Ok(Operation {
                    name,
                    over: Over::Plain,
                    requests: bodies.iter().map(sign).collect::<Fallible<_>>()?,
                })
            })
            .collect()
    }

    fn of_aws(&self) -> Fallible<Vec<Operation>> {
        let address = &self.server.address;
        let (mut generate, mut decrypt) = (Vec::new(), Vec::new());
        for n in 0..DIFFERENT {
            let bodies = Bodies::make(address, n)?;
            generate.push(aws_signed(address, "GenerateDataKey", &bodies.generate)?);
            decrypt.push(aws_signed(address, "Decrypt", &bodies.decrypt)?);
        }
        let of = |name, requests| Operation {
            name,
            over: Over::Plain,
            requests,
        };
        Ok(vec![
            of("aws GenerateDataKey", generate),
            of("aws Decrypt", decrypt),
        ])
    }

    fn of_kes(&self) -> Fallible<Vec<Operation>> {
        let client = Pki(self.data_dir()).client(self.server.said("kes")?.parse()?)?;
        let mut bodies = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for n in 0..DIFFERENT {
            let context = STANDARD.encode(format!(r#"{{"bucket":"bucket/object-{n:04}"}}"#));
            let generate = json!({ "context": context });
            let answer = (self.runtime).block_on(client.call(
                "POST",
                "/v1/key/generate/bench",
                Some(&generate),
            ));
            let made: Value = serde_json::from_slice(&answer.body)?;
            let decrypt = json!({ "ciphertext": made.get("ciphertext"), "context": context });
            let encrypt = json!({ "plaintext": made.get("plaintext"), "context": context });
            let hmac = json!({ "message": context });
            for (all, body) in bodies.iter_mut().zip([generate, decrypt, encrypt, hmac]) {
                all.push(body);
            }
        }
        let [generate, decrypt, encrypt, hmac] = bodies;
        let of = |name, over, path: &str, bodies: &[Value]| {
            let request = |body| format!("/v1/key/{path}/bench\n{body}").into_bytes();
            Operation {
                name,
                over: Over::MutualTls(over),
                requests: bodies.iter().map(request).collect(),
            }
        };
        Ok(vec![
            of("kes generate", "h1", "generate", &generate),
            of("kes decrypt", "h1", "decrypt", &decrypt),
            of("kes encrypt", "h1", "encrypt", &encrypt),
            of("kes hmac", "h1", "hmac", &hmac),
            of("kes generate, HTTP/2", "h2", "generate", &generate),
            of("kes decrypt, HTTP/2", "h2", "decrypt", &decrypt),
        ])
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The instructions of one request, by crate, or by function.
    fn count(&self, operation: &Operation, by_function: bool) -> Fallible<Counts> {
        let mut connection = self.connect(operation.over)?;
        let mut round = || -> Fallible<Counts> {
            std::thread::sleep(TABLE_WRITE);
            // Discards the instructions before this round.
            self.dump(by_function)?;
            for request in operation.requests.iter().cycle().take(SOME) {
                self.send(&mut connection, request)?;
            }
            self.dump(by_function)
        };
        // Caches fill.
        round()?;
        let mut fewest: Option<Counts> = None;
        for _ in 0..ROUNDS {
            let counts = round()?;
            if fewest
                .as_ref()
                .is_none_or(|fewest| total(&counts) < total(fewest))
            {
                fewest = Some(counts);
            }
        }
        self.server.forget_log()?;
        let mut counts = fewest.ok_or("nothing was counted")?;
        counts.values_mut().for_each(|count| *count /= SOME as f64);
        Ok(counts)
    }

    fn connect(&self, over: Over) -> Fallible<Connection> {
        let protocol = match over {
            Over::Plain => {
                let stream = TcpStream::connect(&self.server.address)?;
                stream.set_nodelay(true)?;
                return Ok(Connection::Plain(stream));
            }
            Over::MutualTls(protocol) => protocol,
        };
        let connector = Pki(self.data_dir()).connector(protocol)?;
        let address = self.server.said("kes")?.parse()?;
        let connected = async { Sender::over(connect(&connector, address).await?, protocol).await };
        Ok(Connection::MutualTls(
            self.local.block_on(&self.runtime, connected)?,
        ))
    }

    /// The answer must be 200.
    fn send(&self, connection: &mut Connection, request: &[u8]) -> Fallible<()> {
        match connection {
            Connection::Plain(stream) => {
                let answer = exchange_over(stream, request)?;
                if !is_ok(&answer) {
                    return Err(String::from_utf8_lossy(&answer).into());
                }
                Ok(())
            }
            Connection::MutualTls(sender) => {
                let (path, body) = split(request)?;
                self.local.block_on(&self.runtime, sender.send(path, body))
            }
        }
    }

    /// The instructions since the last call.
    fn dump(&self, by_function: bool) -> Fallible<Counts> {
        let asked = Command::new(&self.vgdb)
            .arg(format!("--pid={}", self.server.pid()))
            .arg("dump")
            .output()?;
        if !asked.status.success() {
            return Err(format!("vgdb: {}", String::from_utf8_lossy(&asked.stderr)).into());
        }
        let is_dump = |path: &PathBuf| path.extension().is_some_and(|end| end != OsStr::new(""));
        let dump = std::fs::read_dir(self.folder.path())?
            .map(|entry| Ok(entry?.path()))
            .collect::<Fallible<Vec<_>>>()?
            .into_iter()
            .find(|path| path.file_stem() == Some(OsStr::new("counts")) && is_dump(path))
            .ok_or("callgrind wrote no counts")?;
        let counts = read(&std::fs::read_to_string(&dump)?, by_function);
        std::fs::remove_file(dump)?;
        Ok(counts)
    }
}

/// The self cost of callgrind's functions, added up by crate or kept by function.
fn read(dump: &str, by_function: bool) -> Counts {
    let (mut functions, mut objects) = (BTreeMap::new(), BTreeMap::new());
    let (mut function, mut object) = (String::new(), String::new());
    let mut counts = Counts::new();
    let mut is_call = false;
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = named(&mut functions, name);
        } else if let Some(name) = line.strip_prefix("ob=") {
            object = named(&mut objects, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(&mut functions, name);
        } else if let Some(name) = line.strip_prefix("cob=") {
            named(&mut objects, name);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| "+-*".contains(first) || first.is_ascii_digit()) {
            // The line after `calls=` is the cost of what is called.
            if !std::mem::take(&mut is_call)
                && let Some(cost) = line.split_ascii_whitespace().nth(1)
                && let Ok(cost) = cost.parse::<f64>()
            {
                let name = if by_function {
                    plain(&function)
                } else {
                    crate_of(&function, &object)
                };
                *counts.entry(name).or_default() += cost;
            }
        }
    }
    counts
}

/// `(NUMBER) NAME` the first time, `(NUMBER)` after that.
fn named(names: &mut BTreeMap<String, String>, text: &str) -> String {
    match text.split_once(") ") {
        Some((number, name)) => {
            names.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        None => names
            .get(text.trim_end_matches(')'))
            .cloned()
            .unwrap_or_default(),
    }
}

/// The name without the parts that differ between builds: `crate[hash]`, `::hHASH`, and `'N` of recursion.
fn plain(function: &str) -> String {
    let mut plain = String::with_capacity(function.len());
    let mut rest = function;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        match after.split_once(']') {
            Some((hash, after)) if hash.len() == 16 => rest = after,
            _ => {
                plain.push('[');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    let end = plain.find("::h").filter(|at| plain.len() - at == 19);
    plain.truncate(end.unwrap_or(plain.len()));
    if let Some((name, depth)) = plain.rsplit_once('\'')
        && depth.bytes().all(|byte| byte.is_ascii_digit())
    {
        plain.truncate(name.len());
    }
    plain
}

/// The crate of a function, from its name; for a name without a path, its object.
fn crate_of(function: &str, object: &str) -> String {
    let library = Path::new(object).file_name().and_then(OsStr::to_str);
    let library = library.unwrap_or_default();
    if library.contains(".so") {
        let name = library.split(".so").next();
        return name.unwrap_or_default().to_owned();
    }
    let function = function.trim_start_matches(['<', '&', '(', '*']);
    let function = function.strip_prefix("mut ").unwrap_or(function);
    let function = function.strip_prefix("dyn ").unwrap_or(function);
    let is_word = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let word = function
        .split(|byte| !is_word(byte))
        .next()
        .unwrap_or_default();
    let follows = function.get(word.len()..).unwrap_or_default();
    if follows.starts_with("::") || follows.starts_with('[') {
        return word.to_owned();
    }
    for (start, library) in [
        ("aws_lc", "aws-lc"),
        ("mi_", "mimalloc"),
        ("_mi_", "mimalloc"),
        ("sqlite3", "sqlite"),
    ] {
        if function.starts_with(start) {
            return library.to_owned();
        }
    }
    "C and others".to_owned()
}

fn print_table(counted: &[(&str, Counts)]) {
    let mut sums = Counts::new();
    for (name, count) in counted.iter().flat_map(|(_, counts)| counts) {
        *sums.entry(name.clone()).or_default() += count;
    }
    let mut crates: Vec<(&String, &f64)> = sums.iter().collect();
    crates.sort_by(|one, other| other.1.total_cmp(one.1));
    let (rows, others) = crates.split_at(crates.len().min(ROWS));
    println!("Instructions of a request, in thousands");
    for (number, (name, _)) in counted.iter().enumerate() {
        println!("{:>4}  {name}", number + 1);
    }
    print!("\n{:<24}", "");
    (1..=counted.len()).for_each(|number| print!("{number:>8}"));
    println!();
    let line = |name: &str, of: &dyn Fn(&Counts) -> f64| {
        print!("{name:<24}");
        for (_, counts) in counted {
            print!("{:>8.1}", of(counts) / 1e3);
        }
        println!();
    };
    for (name, _) in rows {
        line(name, &|counts| {
            counts.get(*name).copied().unwrap_or_default()
        });
    }
    line("others", &|counts| {
        let of = |(name, _): &(&String, &f64)| counts.get(*name).copied().unwrap_or_default();
        others.iter().map(of).sum()
    });
    line("together", &total);
}

fn print_functions(counted: &[(&str, Counts)]) {
    const FUNCTIONS: usize = 100;
    for (name, counts) in counted {
        println!("{name}: {:.0}", total(counts));
        let mut functions: Vec<_> = counts.iter().collect();
        functions.sort_by(|one, other| other.1.total_cmp(one.1));
        for (name, count) in functions.into_iter().take(FUNCTIONS) {
            println!("{count:>9.0}  {name}");
        }
    }
}

/// Compares the counts with the committed ones.
fn compare(counted: &[(&str, Counts)]) -> Fallible<()> {
    let committed: BTreeMap<String, f64> = serde_json::from_slice(&std::fs::read(COMMITTED)?)?;
    let mut are_off = false;
    println!("\n{:<28}{:>12}{:>12}{:>8}", "", "now", "committed", "ratio");
    for (name, counts) in counted {
        let now = total(counts);
        let was = committed.get(*name).copied();
        let ratio = now / was.unwrap_or(f64::NAN);
        let is_off = !((1.0 - TOLERANCE)..=(1.0 + TOLERANCE)).contains(&ratio);
        are_off |= is_off;
        println!(
            "{name:<28}{now:>12.0}{:>12.0}{ratio:>8.3}{}",
            was.unwrap_or(f64::NAN),
            if is_off { "  DIFFERS" } else { "" }
        );
    }
    if are_off {
        return Err("a count differs from the committed one by more than 5 %; if that is meant, run `scripts/bench-instructions write` and commit it".into());
    }
    Ok(())
}
