//! `keyway encrypt-file` and `keyway decrypt-file` against a real server.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use keyway_tests::{Server, ServerOptions, binary};
use tempfile::TempDir;

use crate::kes::{ADMIN_KEY, options as kes_options};
use crate::{create, data_dir, eventually, folder, is_set};

const CHUNK: usize = 65_536;

/// A server with the key `my-key`, and a folder for files.
struct Deployment {
    server: Server,
    folder: TempDir,
    files: TempDir,
}

impl Deployment {
    async fn start() -> Self {
        Self::with(&ServerOptions::default()).await
    }

    async fn with(options: &ServerOptions) -> Self {
        let folder = folder();
        let server = options.start(&data_dir(&folder)).await;
        create(&server, "my-key").await;
        Self {
            server,
            folder,
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names in the folder of the files.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.files.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The variables of the root access key.
    fn options(&self) -> ServerOptions {
        ServerOptions::default()
            .variable(
                "KEYWAY_ENDPOINT",
                &format!("http://{}", self.server.address),
            )
            .variable("KEYWAY_PROFILES_FILE", "/dev/null")
            .variable("AWS_ACCESS_KEY_ID", "test-root")
            .variable("AWS_SECRET_ACCESS_KEY", "test-root-secret")
    }

    /// Those of KES's API.
    fn kes(&self) -> ServerOptions {
        let authority = data_dir(&self.folder).join("kes-listener.crt");
        ServerOptions::default()
            .variable("KEYWAY_API", "kes")
            .variable("KEYWAY_ENDPOINT", &format!("https://{}", self.server.kes()))
            .variable("KEYWAY_CA_FILE", authority.to_str().unwrap())
            .variable("KEYWAY_PROFILES_FILE", "/dev/null")
            .variable("KEYWAY_API_KEY", ADMIN_KEY)
    }

    /// Runs a command on files of the folder, which have a slash before their names here.
    async fn run_by(&self, options: &ServerOptions, arguments: &[&str]) -> (Option<i32>, String) {
        let named = |argument: &&str| match argument.strip_prefix('/') {
            Some(name) => self.path(name).to_str().unwrap().to_owned(),
            None => (*argument).to_owned(),
        };
        let arguments: Vec<String> = arguments.iter().map(named).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, stdout, stderr) = options.run(&arguments).await;
        assert_eq!(stdout, "");
        (code, stderr)
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        self.run_by(&self.options(), arguments).await
    }

    async fn encrypted(&self, input: &str, output: &str) {
        let all = ["encrypt-file", "--key", "my-key", input, output];
        assert_eq!(self.run(&all).await, (Some(0), String::new()));
    }

    /// The command with pipes, and the variables of the root access key.
    fn piped(&self, arguments: &[&str]) -> Child {
        Command::new(binary("keyway"))
            .args(arguments)
            .env_clear()
            .env("KEYWAY_ENDPOINT", format!("http://{}", self.server.address))
            .env("AWS_ACCESS_KEY_ID", "test-root")
            .env("AWS_SECRET_ACCESS_KEY", "test-root-secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// What the command says and how it ends when it reads this from standard input.
fn fed(mut child: Child, input: Vec<u8>) -> (Option<i32>, Vec<u8>, String) {
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses its input does not read all of it.
    let feeder = thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), output.stdout, stderr)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 253) as u8).collect()
}

#[tokio::test]
async fn file_of_any_length_decrypts_to_its_bytes() {
    let deployment = Deployment::start().await;
    for length in [0, 1, CHUNK, 3 * CHUNK + 5] {
        let plaintext = content(length);
        deployment.write("in", &plaintext);
        let encrypt = [
            "encrypt-file",
            "--key",
            "my-key",
            "--context",
            "bucket=backups",
        ];
        let encrypt = [&encrypt[..], &["--context", "object=a=b", "/in", "/out"]].concat();
        assert_eq!(deployment.run(&encrypt).await, (Some(0), String::new()));
        let mode = fs::metadata(deployment.path("out")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let encrypted = deployment.read("out");
        assert!(encrypted.starts_with(b"\xc7\x46\x01\x01\x00\x01\x00\x00"));
        assert!(length < 32 || !encrypted.windows(32).any(|part| part == &plaintext[..32]));

        // The header has the key and the context.
        let decrypt = ["decrypt-file", "/out", "/again"];
        assert_eq!(deployment.run(&decrypt).await, (Some(0), String::new()));
        assert_eq!(deployment.read("again"), plaintext);
        let mode = fs::metadata(deployment.path("again")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(deployment.names(), ["again", "in", "out"]);
        fs::remove_file(deployment.path("out")).unwrap();
        fs::remove_file(deployment.path("again")).unwrap();
    }
}

#[tokio::test]
async fn standard_input_and_output_are_files_too() {
    let deployment = Deployment::start().await;
    let plaintext = content(2 * CHUNK + 5);
    let encrypt = ["encrypt-file", "--key", "my-key", "-", "-"];
    let (code, encrypted, stderr) = fed(deployment.piped(&encrypt), plaintext.clone());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let decrypt = ["decrypt-file", "-", "-"];
    let (code, decrypted, stderr) = fed(deployment.piped(&decrypt), encrypted.clone());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(decrypted, plaintext);

    // A reader gets what was authenticated, and learns at the end that something is missing.
    let cut = encrypted[..encrypted.len() - 21].to_vec();
    let (code, decrypted, stderr) = fed(deployment.piped(&decrypt), cut);
    assert_eq!(code, Some(1));
    assert_eq!(decrypted, plaintext[..CHUNK], "{}", decrypted.len());
    assert!(stderr.contains("does not end with chunk 1"), "{stderr}");
    let (code, decrypted, stderr) = fed(deployment.piped(&decrypt), b"plain text".to_vec());
    assert_eq!((code, decrypted), (Some(1), Vec::new()));
    assert!(
        stderr.contains("not a file that keyway encrypt-file made"),
        "{stderr}"
    );
}

#[tokio::test]
async fn damaged_file_is_refused_and_leaves_no_output() {
    let deployment = Deployment::start().await;
    let plaintext = content(2 * CHUNK + 5);
    deployment.write("in", &plaintext);
    deployment.encrypted("/in", "/out").await;
    let good = deployment.read("out");
    let chunks = good.len() - (2 * (CHUNK + 16) + 21);
    let reordered = [
        &good[..chunks],
        &good[chunks + CHUNK + 16..chunks + 2 * (CHUNK + 16)],
        &good[chunks..chunks + CHUNK + 16],
        &good[chunks + 2 * (CHUNK + 16)..],
    ]
    .concat();
    let flipped = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        changed
    };
    for (damaged, why) in [
        (
            good[..good.len() - 21].to_vec(),
            "does not end with chunk 1",
        ),
        (good[..good.len() - 1].to_vec(), "does not end with chunk 2"),
        (good[..chunks].to_vec(), "does not end with chunk 0"),
        (good[..chunks - 1].to_vec(), "ends within its header"),
        ([&good[..], b"x"].concat(), "does not end with chunk 2"),
        (reordered, "chunk 0 does not open"),
        (flipped(good.len() - 1), "does not end with chunk 2"),
        (flipped(chunks - 1), "its header was changed"),
        (flipped(8), "its header was changed"),
        (flipped(2), "format 0, suite 1"),
        // The key's id: the server notices that the data key belongs to another key.
        (flipped(46), "the ciphertext cannot be decrypted"),
    ] {
        deployment.write("out", &damaged);
        let (code, stderr) = deployment.run(&["decrypt-file", "/out", "/again"]).await;
        assert_eq!(code, Some(1), "{why}: {stderr}");
        assert!(stderr.contains(why), "{why}: {stderr}");
        assert_eq!(deployment.names(), ["in", "out"], "{why}");
    }
}

#[tokio::test]
async fn output_that_exists_is_replaced_only_by_force_and_when_it_is_complete() {
    let deployment = Deployment::start().await;
    deployment.write("in", b"content");
    deployment.write("out", b"theirs");
    let encrypt = ["encrypt-file", "--key", "my-key", "/in", "/out"];
    let (code, stderr) = deployment.run(&encrypt).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("it exists; --force replaces it"),
        "{stderr}"
    );
    assert_eq!(deployment.read("out"), b"theirs");

    let absent = ["encrypt-file", "--force", "--key", "absent", "/in", "/out"];
    let (code, stderr) = deployment.run(&absent).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert_eq!(deployment.read("out"), b"theirs");

    let (code, stderr) = deployment.run(&[&encrypt[..], &["--force"]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    let decrypt = ["decrypt-file", "--force", "/out", "/in"];
    deployment.write("in", b"other");
    let (code, stderr) = deployment.run(&decrypt).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(deployment.read("in"), b"content");
    assert_eq!(deployment.names(), ["in", "out"]);
}

#[tokio::test]
async fn input_and_output_that_do_not_fit_are_refused() {
    let deployment = Deployment::start().await;
    deployment.write("in", b"content");
    fs::hard_link(deployment.path("in"), deployment.path("hard")).unwrap();
    symlink("in", deployment.path("link")).unwrap();
    fs::create_dir(deployment.path("folder")).unwrap();
    for (input, output, code, why) in [
        ("/in", "/in", 2, "are the same file"),
        ("/in", "/hard", 2, "are the same file"),
        ("/in", "/link", 2, "are the same file"),
        ("/link", "/in", 2, "are the same file"),
        ("/folder", "/out", 2, "IN is a folder"),
        ("/in", "/folder", 1, "not a plain file"),
        ("/absent", "/out", 1, "No such file"),
        ("/in", "/absent/out", 1, "No such file"),
    ] {
        for force in [&[][..], &["--force"]] {
            let all = ["encrypt-file", "--key", "my-key", input, output];
            let (exit, stderr) = deployment.run(&[&all[..], force].concat()).await;
            assert_eq!(exit, Some(code), "{input} {output}: {stderr}");
            assert!(stderr.contains(why), "{input} {output}: {stderr}");
        }
    }
    assert_eq!(deployment.read("in"), b"content");
    assert_eq!(deployment.names(), ["folder", "hard", "in", "link"]);

    let forced = ["encrypt-file", "--force", "--key", "my-key", "/in", "-"];
    let (code, stderr) = deployment.run(&forced).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--force has no effect"), "{stderr}");

    // Standard output at the end of the input would never end.
    let appended = File::options().append(true).open(deployment.path("in"));
    let child = Command::new(binary("keyway"))
        .args(["encrypt-file", "--key", "my-key"])
        .args([&deployment.path("in"), Path::new("-")])
        .env_clear()
        .stdout(appended.unwrap())
        .output();
    let stderr = String::from_utf8(child.unwrap().stderr).unwrap();
    assert!(stderr.contains("are the same file"), "{stderr}");
    assert_eq!(deployment.read("in"), b"content");
}

#[tokio::test]
async fn command_stopped_by_a_signal_leaves_no_output() {
    let deployment = Deployment::start().await;
    let output = deployment.path("out");
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let arguments = [
            "encrypt-file",
            "--key",
            "my-key",
            "-",
            output.to_str().unwrap(),
        ];
        let mut child = deployment.piped(&arguments);
        // It has a part of the input and waits for more.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&content(3 * CHUNK)).unwrap();
        eventually("a part is written", async || {
            let entries = fs::read_dir(deployment.files.path()).unwrap();
            let mut lengths = entries.map(|entry| entry.unwrap().metadata().unwrap().len());
            lengths.any(|length| length > CHUNK as u64).then_some(())
        })
        .await;
        assert_eq!(deployment.names().len(), 1);
        assert!(!output.exists());
        let pid = child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(sent.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{signal}");
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(stderr.contains("stopped by signal"), "{stderr}");
        assert!(deployment.names().is_empty(), "{signal}");
        drop(stdin);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn command_that_waits_for_the_writer_of_a_pipe_stops_at_a_signal() {
    let deployment = Deployment::start().await;
    let pipe = deployment.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let output = deployment.path("out");
    let named = [pipe.to_str().unwrap(), output.to_str().unwrap()];
    let child = deployment.piped(&["encrypt-file", "--key", "my-key", named[0], named[1]]);
    // From now on a signal does not end the process by itself, and nobody writes to the pipe.
    eventually("SIGTERM is caught", async || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        (caught & 1 << 14 != 0).then_some(())
    })
    .await;
    let sent = Command::new("kill").arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143));
    assert_eq!(deployment.names(), ["pipe"]);
}

#[tokio::test]
async fn disk_that_is_full_leaves_no_output() {
    let deployment = Deployment::start().await;
    deployment.write("in", &content(3 * CHUNK));
    let options = deployment.options().largest_file(128);
    let encrypt = ["encrypt-file", "--key", "my-key", "/in", "/out"];
    let (code, stderr) = deployment.run_by(&options, &encrypt).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the output cannot be written"), "{stderr}");
    assert_eq!(deployment.names(), ["in"]);
}

#[tokio::test]
async fn server_that_cannot_or_does_not_decrypt_leaves_no_output() {
    let deployment = Deployment::start().await;
    deployment.write("in", b"content");
    deployment.encrypted("/in", "/out").await;
    let other = Deployment::start().await;
    let decrypt = ["decrypt-file", "/out", "/again"];
    let elsewhere = deployment.run_by(&other.options(), &decrypt).await;
    assert_eq!(elsewhere.0, Some(1), "{}", elsewhere.1);
    let nowhere = deployment
        .options()
        .variable("KEYWAY_ENDPOINT", "http://127.0.0.1:1");
    let (code, stderr) = deployment.run_by(&nowhere, &decrypt).await;
    assert_eq!(code, Some(6), "{stderr}");
    let stranger = deployment
        .options()
        .variable("AWS_SECRET_ACCESS_KEY", "another");
    let (code, stderr) = deployment.run_by(&stranger, &decrypt).await;
    assert_eq!(code, Some(4), "{stderr}");
    assert_eq!(deployment.names(), ["in", "out"]);
}

#[tokio::test]
async fn file_is_encrypted_and_decrypted_over_the_kes_api() {
    let deployment = Deployment::with(&kes_options()).await;
    let kes = deployment.kes();
    deployment.write("in", b"content");
    let encrypt = ["encrypt-file", "--key", "my-key", "/in"];
    let context = ["--context", "bucket=backups"];
    for (by, name, context) in [
        (&kes, "/kes", &[][..]),
        (&kes, "/kes-context", &context),
        (&deployment.options(), "/rustfs", &[]),
        (&deployment.options(), "/rustfs-context", &context),
    ] {
        let all = [&encrypt[..], &[name], context].concat();
        assert_eq!(deployment.run_by(by, &all).await, (Some(0), String::new()));
    }
    for (by, name) in [
        (&kes, "/kes"),
        (&kes, "/kes-context"),
        (&deployment.options(), "/rustfs"),
        (&deployment.options(), "/rustfs-context"),
        // Without a context, either API opens what the other made.
        (&kes, "/rustfs"),
        (&deployment.options(), "/kes"),
    ] {
        let all = ["decrypt-file", "--force", name, "/again"];
        assert_eq!(deployment.run_by(by, &all).await, (Some(0), String::new()));
        assert_eq!(deployment.read("again"), b"content");
        deployment.write("again", b"");
    }
    for (by, name) in [
        (&kes, "/rustfs-context"),
        (&deployment.options(), "/kes-context"),
    ] {
        let (code, stderr) = deployment.run_by(by, &["decrypt-file", name, "/no"]).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(
            stderr.contains("opens by the API that encrypted it"),
            "{stderr}"
        );
    }
}

/// The most memory that the process had so far, in KiB.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = line.unwrap().split_whitespace().nth(1);
    words.unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_the_file() {
    const MIB: usize = 1 << 20;
    let most = if is_set("KEYWAY_TORTURE") { 4096 } else { 200 };
    let deployment = Deployment::start().await;
    let mut encrypting = deployment.piped(&["encrypt-file", "--key", "my-key", "-", "-"]);
    let mut decrypting = deployment.piped(&["decrypt-file", "-", "-"]);
    let mut from = encrypting.stdout.take().unwrap();
    let mut to = decrypting.stdin.take().unwrap();
    let between = thread::spawn(move || std::io::copy(&mut from, &mut to).unwrap());
    let mut plaintext = decrypting.stdout.take().unwrap();
    let read = thread::spawn(move || {
        let mut buffer = vec![0; MIB];
        let mut length = 0;
        loop {
            match plaintext.read(&mut buffer).unwrap() {
                0 => return length,
                read => {
                    assert!(buffer[..read].iter().all(|byte| *byte == 7));
                    length += read;
                }
            }
        }
    });
    let mut stdin = encrypting.stdin.take().unwrap();
    let block = vec![7; MIB];
    // The pipes hold less than a MiB: both commands have worked on nearly all of this.
    (0..16).for_each(|_| stdin.write_all(&block).unwrap());
    let before = [peak(&encrypting), peak(&decrypting)];
    (16..most).for_each(|_| stdin.write_all(&block).unwrap());
    let after = [peak(&encrypting), peak(&decrypting)];
    drop(stdin);
    for child in [encrypting, decrypting] {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success());
    }
    between.join().unwrap();
    assert_eq!(read.join().unwrap(), most * MIB);
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + 4096, "{before} KiB, then {after} KiB");
    }
}

#[tokio::test]
async fn encrypted_file_on_a_terminal_is_refused() {
    let deployment = Deployment::start().await;
    deployment.write("in", b"content");
    // script gives a command a terminal.
    let keyway = binary("keyway");
    let input = deployment.path("in");
    let line = format!(
        "{} encrypt-file --key my-key {} -",
        keyway.display(),
        input.display()
    );
    let found = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env(
            "KEYWAY_ENDPOINT",
            format!("http://{}", deployment.server.address),
        )
        .stdin(Stdio::null())
        .output();
    let Ok(shown) = found else {
        eprintln!("skipped: script is missing");
        return;
    };
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("standard output is a terminal"), "{text}");
    assert_eq!(shown.status.code(), Some(2));
}
