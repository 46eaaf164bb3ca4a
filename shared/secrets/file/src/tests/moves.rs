//! A secret's file moves between folders, is killed on its way, and is written again.

use std::fs;
use std::io::{self, BufRead, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use keyway_domain::ports::{SecretStore, StoreError};
use keyway_testkit::FixedClock;
use tempfile::TempDir;

use super::{SECRET, open, private_folder, secret, seeded};
use crate::{FileError, FileSecrets, KeptSecret, Left, SecretMove, moved_away};

const NAME: &str = "root-keyring";
const FILE: &str = "root-keyring.secret";

/// How many more steps until this process is killed; zero for never.
static STEPS_LEFT: AtomicUsize = AtomicUsize::new(0);

/// Ends the process between two steps as `kill -9` does: nothing is dropped, flushed or unlocked.
pub(crate) fn kill_point(_: &'static str) {
    let is_last = STEPS_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    if is_last == Ok(1) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
}

fn clock() -> FixedClock {
    FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap())
}

/// A folder with a secret in it, and the secret's file.
async fn filled(passphrase: Option<&str>) -> (TempDir, PathBuf, Vec<u8>) {
    let outer = private_folder();
    let folder = outer.path().join("x");
    let store = FileSecrets::open(&folder, passphrase.map(secret), seeded(7)).unwrap();
    let value = keyway_crypto::SecretBytes::from(SECRET.to_vec());
    store.put(NAME, &value, None).await.unwrap();
    let text = fs::read(folder.join(FILE)).unwrap();
    (outer, folder, text)
}

fn begin(from: &Path, to: &Path) -> Result<Option<SecretMove>, StoreError> {
    // Two processes must not choose the same temporary name.
    SecretMove::begin(NAME, from, to, seeded(std::process::id().into()).as_ref())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn move_to_the_same_folder_under_any_spelling_does_nothing() {
    for passphrase in [None, Some("correct horse")] {
        let (outer, x, text) = filled(passphrase).await;
        symlink(outer.path(), outer.path().join("link")).unwrap();
        fs::create_dir(outer.path().join("other")).unwrap();
        let relative = {
            let here = std::env::current_dir().unwrap();
            let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
            up.join(x.strip_prefix("/").unwrap())
        };
        let text_of = |path: &Path| path.to_str().unwrap().to_owned();
        let outer_text = text_of(outer.path());
        for other in [
            text_of(&x),
            format!("{}/", x.display()),
            format!("{}//", x.display()),
            format!("{}/.", x.display()),
            format!("{outer_text}//x"),
            format!("{outer_text}/./x"),
            format!("{outer_text}/other/../x"),
            format!("{outer_text}/link/x"),
            format!("{outer_text}/link/link/x/"),
            text_of(&relative),
        ] {
            for (from, to) in [(x.as_path(), Path::new(&other)), (Path::new(&other), &x)] {
                assert!(begin(from, to).unwrap().is_none(), "{other}");
                assert_eq!(names(&x), [FILE], "{other}");
                assert_eq!(fs::read(x.join(FILE)).unwrap(), text, "{other}");
            }
        }
        // A folder that is a link itself is refused, as everywhere.
        symlink(&x, outer.path().join("y")).unwrap();
        assert!(begin(&x, &outer.path().join("y")).is_err());
        assert_eq!(names(&x), [FILE]);
    }
}

#[tokio::test]
async fn move_to_another_folder_keeps_the_old_file_under_another_name() {
    for passphrase in [None, Some("correct horse")] {
        let (outer, x, text) = filled(passphrase).await;
        let y = outer.path().join("y");
        let moving = begin(&x, &y).unwrap().unwrap();
        assert_eq!(
            (names(&x), names(&y)),
            (vec![FILE.into()], vec![FILE.into()])
        );
        let Left::Renamed(aside) = moving.leave(&y, &clock()).unwrap() else {
            panic!("it was left");
        };
        assert_eq!(aside, x.join(format!("{FILE}.moved-20260102T030405Z")));
        assert_eq!(fs::read(&aside).unwrap(), text);
        assert_eq!(fs::read(y.join(FILE)).unwrap(), text);
        assert_eq!(names(&y), [FILE]);
        assert_eq!(moved_away(NAME, &x).unwrap(), Some(aside.clone()));
        assert_eq!(moved_away(NAME, &y).unwrap(), None);
        assert_eq!(moved_away(NAME, &outer.path().join("z")).unwrap(), None);
        drop(moving);

        // Moving back and away again within the same second overwrites nothing.
        for (from, to) in [(&y, &x), (&x, &y)] {
            let moving = begin(from, to).unwrap().unwrap();
            assert!(matches!(
                moving.leave(to, &clock()).unwrap(),
                Left::Renamed(_)
            ));
        }
        let (mut in_x, in_y) = (names(&x), names(&y));
        assert_eq!(
            in_x.pop().unwrap(),
            format!("{FILE}.moved-20260102T030405Z-1")
        );
        assert_eq!(in_x, [format!("{FILE}.moved-20260102T030405Z")]);
        assert_eq!(
            in_y,
            [FILE.to_owned(), format!("{FILE}.moved-20260102T030405Z")]
        );
        let store = FileSecrets::open(&y, passphrase.map(secret), seeded(9)).unwrap();
        let (value, _) = store.get(NAME).await.unwrap().unwrap();
        assert_eq!(value.expose(), SECRET);
        let nothing = FileSecrets::open(&x, passphrase.map(secret), seeded(9)).unwrap();
        assert!(nothing.get(NAME).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn leave_without_another_folder_that_holds_the_file_changes_nothing() {
    let (outer, x, text) = filled(None).await;
    let y = outer.path().join("y");
    let z = outer.path().join("z");
    drop(open_at(&z));
    symlink(outer.path(), outer.path().join("link")).unwrap();
    let moving = begin(&x, &y).unwrap().unwrap();
    // The record names the old folder again, by either path.
    for named in [x.clone(), outer.path().join("link/x")] {
        assert_eq!(moving.leave(&named, &clock()).unwrap(), Left::StillNamed);
    }
    // The record names a folder without the file, or a missing one.
    assert!(moving.leave(&z, &clock()).is_err());
    assert!(
        moving
            .leave(&outer.path().join("absent"), &clock())
            .is_err()
    );
    assert!(!outer.path().join("absent").exists());
    // The file in the named folder is damaged, or another.
    let kept = fs::read(y.join(FILE)).unwrap();
    for other in [
        &kept[..kept.len() / 2],
        b"",
        b"{\"format\":1,\"version\":\"1.a\",\"value\":\"AAAA\"}\n",
    ] {
        fs::write(y.join(FILE), other).unwrap();
        assert!(moving.leave(&y, &clock()).is_err());
    }
    fs::remove_file(y.join(FILE)).unwrap();
    assert!(moving.leave(&y, &clock()).is_err());
    assert_eq!(names(&x), [FILE]);
    assert_eq!(fs::read(x.join(FILE)).unwrap(), text);

    fs::hard_link(x.join(FILE), y.join(FILE)).unwrap();
    assert!(matches!(
        moving.leave(&y, &clock()).unwrap(),
        Left::Renamed(_)
    ));
    assert_eq!(
        fs::read(y.join(FILE)).unwrap(),
        text,
        "a hard link is a file of its own name"
    );
    assert_eq!(moving.leave(&y, &clock()).unwrap(), Left::Absent);
}

fn open_at(folder: &Path) -> FileSecrets {
    FileSecrets::open(folder, None, seeded(7)).unwrap()
}

#[tokio::test]
async fn begin_with_another_secret_in_the_target_is_a_conflict() {
    let (outer, x, text) = filled(None).await;
    let y = outer.path().join("y");
    let other = keyway_crypto::SecretBytes::from(b"other".to_vec());
    open_at(&y).put(NAME, &other, None).await.unwrap();
    let before = fs::read(y.join(FILE)).unwrap();
    assert!(matches!(begin(&x, &y), Err(StoreError::Conflict)));
    assert_eq!(fs::read(x.join(FILE)).unwrap(), text);
    assert_eq!(fs::read(y.join(FILE)).unwrap(), before);

    fs::remove_file(x.join(FILE)).unwrap();
    let absent = begin(&x, &outer.path().join("z")).map(drop);
    assert!(super::failure(absent).contains("does not exist"));
    assert!(!outer.path().join("z").exists());
    assert!(begin(&x, &x).unwrap().is_none());
}

#[tokio::test]
async fn begin_while_another_move_holds_the_folders_waits_for_it() {
    let (outer, x, _) = filled(None).await;
    let y = outer.path().join("y");
    let first = begin(&x, &y).unwrap().unwrap();
    // A move in the opposite direction takes the locks in the same order.
    let other = {
        let (x, y) = (x.clone(), y.clone());
        thread::spawn(move || begin(&y, &x).unwrap().unwrap().leave(&x, &clock()).unwrap())
    };
    assert!(matches!(
        first.leave(&y, &clock()).unwrap(),
        Left::Renamed(_)
    ));
    assert!(
        !x.join(FILE).exists(),
        "nobody else is at work while the locks are held"
    );
    drop(first);
    assert!(matches!(other.join().unwrap(), Left::Renamed(_)));
    assert!(x.join(FILE).exists() && !y.join(FILE).exists());
}

/// The record of these tests: a file that names the folder, replaced as a whole.
fn record(outer: &Path) -> PathBuf {
    outer.join("record")
}

fn named(outer: &Path) -> PathBuf {
    outer.join(fs::read_to_string(record(outer)).unwrap())
}

fn name_folder(outer: &Path, folder: &str) {
    let new = outer.join(format!("record.{}.{folder}", std::process::id()));
    fs::write(&new, folder).unwrap();
    fs::rename(new, record(outer)).unwrap();
}

/// One move to `to`, as the service makes it: begin, write the record, leave.
fn move_to(outer: &Path, to: &str) {
    let from = named(outer);
    let moving = match begin(&from, &outer.join(to)) {
        Ok(Some(moving)) => moving,
        Ok(None) => return,
        // Another process moved it in the meantime.
        Err(_) if named(outer) != from => return,
        Err(error) => panic!("{error:?}"),
    };
    // Write the record only if it is unchanged. Both locks keep other moves from here from writing it.
    if named(outer) != from {
        return;
    }
    kill_point("the record is about to be written");
    name_folder(outer, to);
    kill_point("the record is written");
    moving.leave(&named(outer), &clock()).unwrap();
    kill_point("the old folder is left");
}

/// Starts this test binary again to run the test below, which reads its work from standard input.
fn run(outer: &Path, work: &str, steps: usize) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "tests::moves::child_moves",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}\t{work}\t{steps}", outer.display()).unwrap();
    drop(input);
    child.wait().unwrap().success()
}

#[test]
#[ignore = "run by the tests of kills"]
fn child_moves() {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).unwrap();
    let mut work = line.trim_end_matches('\n').split('\t');
    let (Some(outer), Some(what), Some(steps)) = (work.next(), work.next(), work.next()) else {
        return;
    };
    let (outer, steps) = (Path::new(outer), steps.parse().unwrap());
    match what {
        "restore" => {
            let kept = KeptSecret::new(NAME).unwrap();
            assert!(kept.look(&outer.join("x")).unwrap());
            fs::remove_file(outer.join("x").join(FILE)).unwrap();
            STEPS_LEFT.store(steps, Ordering::Relaxed);
            let locked = KeptSecret::lock(&outer.join("x"), true).unwrap();
            kept.restore(&locked, seeded(9).as_ref()).unwrap();
        }
        to => {
            STEPS_LEFT.store(steps, Ordering::Relaxed);
            move_to(outer, to);
        }
    }
}

async fn opens(folder: &Path, passphrase: Option<&str>) {
    let store = FileSecrets::open(folder, passphrase.map(secret), seeded(10)).unwrap();
    let (value, _) = store.get(NAME).await.unwrap().unwrap();
    assert_eq!(value.expose(), SECRET);
}

#[tokio::test]
async fn kill_at_any_step_of_a_move_leaves_the_secret_where_the_record_says() {
    const MOST_STEPS: usize = 40;
    // A move does not use the passphrase, and deriving keys is slow.
    let protections = if is_torture() { 2 } else { 1 };
    for passphrase in [None, Some("correct horse")].into_iter().take(protections) {
        let mut killed = 0;
        for step in 1..=MOST_STEPS {
            let (outer, x, text) = filled(passphrase).await;
            let outer = outer.path();
            name_folder(outer, "x");
            let survived = run(outer, "y", step);
            killed += usize::from(!survived);
            // Wherever it was killed, the folder that the record names holds the whole secret.
            opens(&named(outer), passphrase).await;
            assert_eq!(
                fs::read(named(outer).join(FILE)).unwrap(),
                text,
                "step {step}"
            );
            // And the next move works, there and back.
            move_to(outer, "y");
            opens(&named(outer), passphrase).await;
            move_to(outer, "x");
            assert_eq!(named(outer), x);
            opens(&x, passphrase).await;
            if survived {
                break;
            }
        }
        assert!((9..MOST_STEPS).contains(&killed), "{killed} kills");
    }
}

#[tokio::test]
async fn moves_in_opposite_directions_that_are_killed_at_any_step_lose_nothing() {
    let rounds = if is_torture() { 200 } else { 8 };
    let (outer, _, text) = filled(None).await;
    let outer = outer.path();
    name_folder(outer, "x");
    for round in 1..=rounds {
        thread::scope(|scope| {
            for (to, step) in [("y", round % 13), ("x", round % 11), ("y", 0), ("x", 0)] {
                scope.spawn(move || run(outer, to, step));
            }
        });
        opens(&named(outer), None).await;
        assert_eq!(
            fs::read(named(outer).join(FILE)).unwrap(),
            text,
            "round {round}"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a test does is told by the environment"
)]
fn is_torture() -> bool {
    std::env::var_os("KEYWAY_TORTURE").is_some()
}

#[test]
fn restore_of_a_missing_file_writes_the_same_bytes_and_overwrites_nothing() {
    let outer = private_folder();
    let folder = outer.path().join("x");
    let kept = KeptSecret::new(NAME).unwrap();
    assert!(!kept.look(&folder).unwrap());
    assert!(!folder.exists(), "a look makes nothing");
    let random = seeded(1);
    let locked = KeptSecret::lock(&folder, true).unwrap();
    let never_seen = kept.restore(&locked, random.as_ref());
    assert!(super::failure(never_seen.map(drop)).contains("does not exist"));
    drop(locked);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = FileSecrets::open(&folder, Some(secret("correct horse")), seeded(2)).unwrap();
    runtime
        .block_on(store.put(NAME, &secret("kept"), None))
        .unwrap();
    let text = fs::read(folder.join(FILE)).unwrap();
    assert!(kept.look(&folder).unwrap());
    for gone in ["file", "folder"] {
        match gone {
            "file" => fs::remove_file(folder.join(FILE)).unwrap(),
            _ => fs::remove_dir_all(&folder).unwrap(),
        }
        assert!(!kept.look(&folder).unwrap());
        if gone == "folder" {
            assert!(KeptSecret::lock(&folder, false).is_err());
            assert!(!folder.exists());
        }
        let locked = KeptSecret::lock(&folder, true).unwrap();
        let written = kept.restore(&locked, random.as_ref()).unwrap();
        assert_eq!(written, Some(folder.join(FILE)));
        assert_eq!(fs::read(folder.join(FILE)).unwrap(), text);
        assert_eq!(super::mode(&folder.join(FILE)), 0o600);
    }
    // A later version replaces the kept one; a file that is no secret's is an error and changes nothing.
    fs::copy(folder.join(FILE), outer.path().join("first")).unwrap();
    let store = FileSecrets::open(&folder, Some(secret("correct horse")), seeded(2)).unwrap();
    let changed = store.change_passphrase(NAME, Some(secret("new").into()));
    runtime.block_on(changed).unwrap();
    let text = fs::read(folder.join(FILE)).unwrap();
    assert!(kept.look(&folder).unwrap());
    let other = open_at(&outer.path().join("other"));
    runtime
        .block_on(other.put(NAME, &secret("other"), None))
        .unwrap();
    for another in ["first", "other/root-keyring.secret"] {
        fs::copy(outer.path().join(another), folder.join(FILE)).unwrap();
        assert!(matches!(kept.look(&folder), Err(FileError::Other { .. })));
    }
    fs::remove_file(folder.join(FILE)).unwrap();
    let locked = KeptSecret::lock(&folder, false).unwrap();
    kept.restore(&locked, random.as_ref()).unwrap();
    drop(locked);
    assert_eq!(fs::read(folder.join(FILE)).unwrap(), text);
    fs::write(folder.join(FILE), "another").unwrap();
    assert!(matches!(kept.look(&folder), Err(FileError::Garbled { .. })));
    let locked = KeptSecret::lock(&folder, true).unwrap();
    assert_eq!(kept.restore(&locked, random.as_ref()).unwrap(), None);
    assert_eq!(fs::read(folder.join(FILE)).unwrap(), b"another");
}

#[tokio::test]
async fn kill_between_any_two_steps_of_a_restoration_leaves_the_file_or_none() {
    const MOST_STEPS: usize = 20;
    for step in 1..=MOST_STEPS {
        let (outer, x, text) = filled(None).await;
        let survived = run(outer.path(), "restore", step);
        drop(open_at(&x));
        match fs::read(x.join(FILE)) {
            Ok(found) => assert_eq!(found, text, "step {step}"),
            Err(_) => assert!(names(&x).is_empty(), "{:?}", names(&x)),
        }
        if survived {
            assert!(step > 3);
            return;
        }
    }
    panic!("it never survived");
}

#[test]
fn lock_that_is_a_link_or_of_others_is_refused_and_what_it_names_stays() {
    let folder = private_folder();
    let victim = folder.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    let inner = folder.path().join("inner");
    drop(open_at(&inner));
    fs::remove_file(inner.join(".lock")).unwrap();
    symlink(&victim, inner.join(".lock")).unwrap();
    let refused = FileSecrets::open(&inner, None, seeded(1));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("not a plain file")
    );
    assert_eq!(fs::read(&victim).unwrap(), b"as it was");
    drop(open(&folder, None));
}
