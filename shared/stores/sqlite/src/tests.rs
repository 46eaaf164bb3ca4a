//! The table as a whole: the contract, two tables and two processes over one file, crashes, modes, schemas.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use keyway_domain::ports::Random;
use keyway_testkit::{FixedClock, SeededRandom, table_contract};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn table_keeps_the_contract() {
    let folder = private_folder();
    let random = SeededRandom::new(1);
    table_contract::run_all(
        async |clock| {
            let path = folder
                .path()
                .join(format!("{:032x}", u128::from_be_bytes(bytes(&random))));
            Arc::new(SqliteTable::open(&path, clock).unwrap()) as _
        },
        &SeededRandom::new(2),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_stays_as_it_was_and_blocks_no_writer() {
    let folder = private_folder();
    let table = open(&folder);
    table.put_new(&record("a", 1)).await.unwrap();
    table.put_new(&record("b", 1)).await.unwrap();
    let snapshot = table.snapshot().await.unwrap().unwrap();
    table
        .replace(&record("a", 2), Revision([1; 16]))
        .await
        .unwrap();
    table
        .remove(Kind::Key, "b", Revision([1; 16]))
        .await
        .unwrap();
    table.put_new(&record("c", 1)).await.unwrap();
    let ids = async |reader: &dyn TableReader| {
        let page = reader.page(Kind::Key, "", None, 10).await.unwrap();
        let of = |record: Record| (record.id, record.revision.0[0]);
        page.records.into_iter().map(of).collect::<Vec<_>>()
    };
    let named = |id: &str, revision: u8| (id.to_owned(), revision);
    assert_eq!(ids(snapshot.as_ref()).await, [named("a", 1), named("b", 1)]);
    assert_eq!(ids(table.as_ref()).await, [named("a", 2), named("c", 1)]);
    assert_eq!(snapshot.count(Kind::Key, "").await.unwrap(), 2);
    let kept = snapshot.get(Kind::Key, "b", Consistency::Strong).await;
    assert_eq!(kept.unwrap(), Some(record("b", 1)));
    let later = table.snapshot().await.unwrap().unwrap();
    assert_eq!(ids(later.as_ref()).await, [named("a", 2), named("c", 1)]);
}

#[tokio::test]
async fn rows_that_do_not_decode_are_left_out_of_pages_and_refused_by_themselves() {
    let folder = private_folder();
    let table = open(&folder);
    for id in ["a", "b", "c", "d", "e"] {
        table.put_new(&record(id, 1)).await.unwrap();
    }
    let raw = Connection::open(folder.path().join("table")).unwrap();
    let set = |sql: &str| raw.execute(sql, []).unwrap();
    set("UPDATE records SET revision = x'01' WHERE id = x'61'");
    set("UPDATE records SET expires_at = 9223372036854775807 WHERE id = x'63'");
    set("UPDATE records SET id = x'64ff' WHERE id = x'64'");
    for limit in 1..=5 {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..5 {
            let page = table
                .page(Kind::Key, "", after.as_deref(), limit)
                .await
                .unwrap();
            found.extend(page.records.iter().map(|record| record.id.clone()));
            after = found.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(found, ["b", "e"], "{limit}");
    }
    for id in ["a", "c"] {
        let read = table.get(Kind::Key, id, Consistency::Strong).await;
        assert!(matches!(read, Err(StoreError::Failed { .. })), "{id}");
    }
}

#[tokio::test]
async fn file_that_is_deleted_moved_or_replaced_is_noticed_by_the_next_call() {
    for what in [
        "deleted",
        "moved",
        "replaced",
        "log deleted",
        "log replaced",
    ] {
        let folder = private_folder();
        let table = open(&folder);
        let kept = record("kept", 1);
        table.put_new(&kept).await.unwrap();
        let path = folder.path().join("table");
        let (log, aside) = (folder.path().join("table-wal"), folder.path().join("aside"));
        let get = || table.get(Kind::Key, "kept", Consistency::Strong);
        get().await.unwrap().unwrap();
        match what {
            "deleted" => fs::remove_file(&path).unwrap(),
            "moved" => fs::rename(&path, &aside).unwrap(),
            "replaced" => {
                let other = private_folder();
                drop(open(&other));
                fs::rename(&path, &aside).unwrap();
                fs::copy(other.path().join("table"), &path).unwrap();
            }
            "log deleted" => fs::remove_file(&log).unwrap(),
            _ => {
                fs::rename(&log, &aside).unwrap();
                fs::write(&log, "").unwrap();
            }
        }
        let refused = |result: Result<(), StoreError>| {
            let Err(StoreError::Away(text)) = result else {
                panic!("{what}: {result:?}");
            };
            let named = if what.starts_with("log") { &log } else { &path };
            assert!(text.starts_with(&format!("{} ", named.display())), "{text}");
        };
        for _ in 0..2 {
            refused(get().await.map(drop));
            refused(table.count(Kind::Key, "").await.map(drop));
            refused(table.page(Kind::Key, "", None, 1).await.map(drop));
            refused(table.put_new(&record("new", 2)).await);
            refused(table.replace(&record("kept", 2), kept.revision).await);
            refused(table.remove(Kind::Key, "kept", kept.revision).await);
        }
        if what == "moved" {
            fs::rename(&aside, &path).unwrap();
            assert_eq!(get().await.unwrap(), Some(kept.clone()));
            table.put_new(&record("new", 2)).await.unwrap();
        }
        if what == "replaced" {
            // The file that took its place is unchanged, and its log too.
            fs::write(&log, "of another").unwrap();
            let before = fs::read(&path).unwrap();
            drop(table);
            assert_eq!(fs::read(&log).unwrap(), b"of another");
            assert_eq!(fs::read(&path).unwrap(), before);
        } else if what == "log deleted" {
            // The content of the deleted log is checkpointed into the table.
            drop(table);
            let again = open(&folder);
            let found = again.get(Kind::Key, "kept", Consistency::Strong).await;
            assert_eq!(found.unwrap(), Some(kept));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_other_processes_open_and_close_is_never_taken_for_gone() {
    let folder = private_folder();
    let table = open(&folder);
    for number in 0..20 {
        let other = open(&folder);
        let id = format!("id-{number}");
        other.put_new(&record(&id, number)).await.unwrap();
        drop(other);
        let found = table.get(Kind::Key, &id, Consistency::Strong).await;
        assert!(found.unwrap().is_some());
        table
            .put_new(&record(&format!("own-{number}"), number))
            .await
            .unwrap();
    }
}

#[test]
fn files_of_another_user_are_refused_with_the_remedy() {
    let folder = private_folder();
    let clock = || Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let path = folder.path().join("table");
    drop(SqliteTable::open(&path, clock()).unwrap());
    let beside = ["table-wal", "table-shm"].map(|name| folder.path().join(name));
    for path in &beside {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    let own = fs::metadata(&path).unwrap().uid();
    for victim in [folder.path(), &path, &beside[0], &beside[1]] {
        // Only root may give files away.
        if chown(victim, Some(12_345), None).is_err() {
            return;
        }
        let refused = SqliteTable::open(&path, clock()).unwrap_err().to_string();
        let remedy = format!("run: chown {own} '{}'", victim.display());
        assert!(
            refused.contains("belongs to user 12345") && refused.contains(&remedy),
            "{refused}"
        );
        chown(victim, Some(own), None).unwrap();
    }
    drop(SqliteTable::open(&path, clock()).unwrap());
}

#[test]
fn links_beside_the_table_are_refused_and_what_they_name_stays() {
    let folder = private_folder();
    let clock = || Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let path = folder.path().join("table");
    drop(SqliteTable::open(&path, clock()).unwrap());
    let victim = folder.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
    for ending in ["-wal", "-shm"] {
        let link = folder.path().join(format!("table{ending}"));
        symlink(&victim, &link).unwrap();
        let refused = SqliteTable::open(&path, clock()).unwrap_err().to_string();
        assert!(refused.contains("is not a plain file"), "{refused}");
        assert_eq!(fs::read(&victim).unwrap(), b"as it was");
        fs::remove_file(&link).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_over_one_file_are_one_table() {
    let folder = private_folder();
    let (one, other) = (open(&folder), open(&folder));
    let record = record("id", 1);
    one.put_new(&record).await.unwrap();
    assert_eq!(
        other
            .get(Kind::Key, "id", Consistency::Strong)
            .await
            .unwrap(),
        Some(record.clone())
    );
    other
        .remove(Kind::Key, "id", record.revision)
        .await
        .unwrap();
    assert_eq!(
        one.get(Kind::Key, "id", Consistency::Eventual)
            .await
            .unwrap(),
        None
    );

    one.put_new(&count("count", 0)).await.unwrap();
    let mut running = JoinSet::new();
    for (n, table) in [&one, &other, &one, &other].into_iter().enumerate() {
        let (table, random) = (Arc::clone(table), SeededRandom::new(n as u64));
        running.spawn(async move {
            for _ in 0..50 {
                table_contract::increment(&*table, "count", &random).await;
            }
        });
    }
    running.join_all().await;
    let last = other
        .get(Kind::Key, "count", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.value, 200_u64.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_over_one_file_lose_no_increment() {
    let folder = private_folder();
    let table = open(&folder);
    table.put_new(&count("count", 0)).await.unwrap();
    let children = [10, 11].map(|seed| child("child_increments", &folder, seed));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let last = table
        .get(Kind::Key, "count", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.value, (2 * CHILD_TASKS * CHILD_ROUNDS).to_be_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_open_a_new_file_at_once_all_succeed() {
    let folder = private_folder();
    let children: Vec<Child> = (0..8)
        .map(|seed| child("child_creates_one", &folder, seed))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let page = open(&folder)
        .page(Kind::Key, "child-", None, 100)
        .await
        .unwrap();
    assert_eq!(page.records.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_process_loses_no_acknowledged_record() {
    let folder = private_folder();
    for seed in 0..4 {
        let mut child = child("child_creates_many", &folder, seed);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 400 {
            let line = lines.next().unwrap().unwrap();
            acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        }
        child.kill().unwrap(); // SIGKILL: it gets no chance to finish anything.
        child.wait().unwrap();
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|l| Some(l.strip_prefix("acknowledged ")?.to_owned())),
        );

        let table = open(&folder);
        for id in acknowledged {
            let found = table
                .get(Kind::Key, &id, Consistency::Strong)
                .await
                .unwrap();
            assert_eq!(found.unwrap().value, id.as_bytes());
        }
    }
}

const CHILD_TASKS: u64 = 4;
const CHILD_ROUNDS: u64 = 50;

/// Starts this test binary again to run one of the tests below, which reads its folder from standard input.
fn child(test: &str, folder: &TempDir, seed: u64) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            &format!("tests::{test}"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(
        child.stdin.take().unwrap(),
        "{seed} {}",
        folder.path().display()
    )
    .unwrap();
    child
}

/// The seed and the table from the parent process, if there is one.
fn child_work() -> Option<(u64, Arc<SqliteTable>)> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let (seed, folder) = line.trim_end().split_once(' ')?;
    let clock = Arc::new(FixedClock::new(Timestamp::UNIX_EPOCH));
    let table = SqliteTable::open(&Path::new(folder).join("table"), clock).unwrap();
    Some((seed.parse().unwrap(), Arc::new(table)))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by two_processes_over_one_file_lose_no_increment"]
async fn child_increments() {
    let Some((seed, table)) = child_work() else {
        return;
    };
    let mut running = JoinSet::new();
    for n in 0..CHILD_TASKS {
        let (table, random) = (Arc::clone(&table), SeededRandom::new(seed * 1_000 + n));
        running.spawn(async move {
            for _ in 0..CHILD_ROUNDS {
                table_contract::increment(&*table, "count", &random).await;
            }
        });
    }
    running.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by processes_that_open_a_new_file_at_once_all_succeed"]
async fn child_creates_one() {
    let Some((seed, table)) = child_work() else {
        return;
    };
    table
        .put_new(&record(&format!("child-{seed}"), 1))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by killed_process_loses_no_acknowledged_record"]
async fn child_creates_many() {
    let Some((seed, table)) = child_work() else {
        return;
    };
    let mut running = JoinSet::new();
    for task in 0..8 {
        let table = Arc::clone(&table);
        running.spawn(async move {
            for n in 0_u64.. {
                let id = format!("{seed}-{task}-{n}");
                let record = Record {
                    value: id.clone().into_bytes(),
                    ..record(&id, 1)
                };
                table.put_new(&record).await.unwrap();
                println!("acknowledged {id}");
            }
        });
    }
    running.join_all().await;
}

#[tokio::test]
async fn dropped_table_leaves_one_complete_file() {
    let folder = private_folder();
    let table = open(&folder);
    table.put_new(&record("id", 1)).await.unwrap();
    table
        .get(Kind::Key, "id", Consistency::Strong)
        .await
        .unwrap();
    drop(table);
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["table"]);
    assert!(
        open(&folder)
            .get(Kind::Key, "id", Consistency::Strong)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn write_no_longer_awaited_takes_place() {
    let folder = private_folder();
    let table = open(&folder);
    let writing = record("id", 1);
    // Poll once, which sends the write to the thread, and then drop.
    let abandoned = tokio::time::timeout(Duration::ZERO, table.put_new(&writing)).await;
    drop(abandoned);
    drop(table);
    assert!(
        open(&folder)
            .get(Kind::Key, "id", Consistency::Strong)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn files_of_the_table_are_their_owners_alone() {
    let folder = private_folder();
    let inner = folder.path().join("made").join("here");
    let table = SqliteTable::open(&inner.join("table"), clock()).unwrap();
    table.put_new(&record("id", 1)).await.unwrap();
    assert_eq!(mode(&inner), 0o700);
    assert_eq!(mode(&folder.path().join("made")), 0o700);
    for name in ["table", "table-wal", "table-shm"] {
        assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
    }
}

#[test]
fn file_open_to_others_is_refused_with_a_remedy() {
    let folder = private_folder();
    let path = folder.path().join("table");
    drop(open(&folder));
    for loose in [0o640, 0o604, 0o620, 0o660, 0o700, 0o644] {
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        let text = SqliteTable::open(&path, clock()).unwrap_err().to_string();
        let path = path.canonicalize().unwrap();
        assert!(text.contains(&format!("has mode {loose:04o}")), "{text}");
        assert!(
            text.contains(&format!("chmod 600 '{}'", path.display())),
            "{text}"
        );
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for loose in [0o750, 0o701, 0o770, 0o755] {
        fs::set_permissions(folder.path(), Permissions::from_mode(loose)).unwrap();
        let text = SqliteTable::open(&path, clock()).unwrap_err().to_string();
        let folder = folder.path().canonicalize().unwrap();
        assert!(text.contains(&format!("has mode {loose:04o}")), "{text}");
        assert!(
            text.contains(&format!("chmod 700 '{}'", folder.display())),
            "{text}"
        );
    }
}

#[test]
fn path_that_is_no_plain_file_is_refused() {
    let folder = private_folder();
    drop(open(&folder));
    let link = folder.path().join("link");
    symlink(folder.path().join("table"), &link).unwrap();
    assert!(matches!(
        SqliteTable::open(&link, clock()),
        Err(OpenError::NotAFile { .. })
    ));
    let inner = folder.path().join("folder");
    fs::create_dir(&inner).unwrap();
    assert!(matches!(
        SqliteTable::open(&inner, clock()),
        Err(OpenError::NotAFile { .. })
    ));
    assert!(matches!(
        SqliteTable::open(Path::new("/"), clock()),
        Err(OpenError::NotAFile { .. })
    ));
    let below_a_file = folder.path().join("table").join("table");
    assert!(matches!(
        SqliteTable::open(&below_a_file, clock()),
        Err(OpenError::Io { .. })
    ));
}

#[tokio::test]
async fn names_special_to_sqlite_are_plain_names() {
    let folder = private_folder();
    for name in [":memory:", "file:other?mode=memory"] {
        let path = folder.path().join(name);
        SqliteTable::open(&path, clock())
            .unwrap()
            .put_new(&record("id", 1))
            .await
            .unwrap();
        let again = SqliteTable::open(&path, clock()).unwrap();
        assert!(
            again
                .get(Kind::Key, "id", Consistency::Strong)
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn file_of_another_program_is_refused_and_left_as_it_is() {
    let folder = private_folder();
    let path = folder.path().join("table");
    let refused = || {
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let before = fs::read(&path).unwrap();
        let error = SqliteTable::open(&path, clock())
            .expect_err(&String::from_utf8_lossy(&before[..before.len().min(40)]));
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
        assert!(fs::read(&path).unwrap() == before);
        fs::remove_file(&path).unwrap();
    };
    for text in [
        "x",
        "no database\n",
        &"x".repeat(511),
        &"x".repeat(512),
        &"no database either\n".repeat(1_000),
    ] {
        fs::write(&path, text).unwrap();
        refused();
    }
    for other in [
        "CREATE TABLE records (id)",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 7; CREATE TABLE t (c)",
        "PRAGMA application_id = 7",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (c)",
    ] {
        Connection::open(&path)
            .unwrap()
            .execute_batch(other)
            .unwrap();
        refused();
    }
}

#[test]
fn newer_schema_is_refused() {
    let folder = private_folder();
    drop(open(&folder));
    let path = folder.path().join("table");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteTable::open(&path, clock()).unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("run the later release"),
        "{error}"
    );
}

/// Version 1 as it was released. Never change it, even when the schema changes.
const VERSION_1: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE records (
        kind TEXT NOT NULL,
        id BLOB NOT NULL,
        revision BLOB NOT NULL,
        expires_at INTEGER,
        value BLOB NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
    INSERT INTO records VALUES ('key', x'6964', x'01010101010101010101010101010101', NULL, x'76616c7565');
    INSERT INTO records VALUES
        ('audit', CAST('20260102T03.w.1' AS BLOB), x'02020202020202020202020202020202', NULL, x'76616c7565');
    PRAGMA application_id = 0x4b455957;
    PRAGMA user_version = 1;";

#[tokio::test]
async fn released_schema_is_migrated() {
    let folder = private_folder();
    let path = folder.path().join("table");
    Connection::open(&path)
        .unwrap()
        .execute_batch(VERSION_1)
        .unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        let table = open(&folder);
        let found = table
            .get(Kind::Key, "id", Consistency::Strong)
            .await
            .unwrap();
        assert_eq!(found, Some(record("id", 1)));
        let event = Record {
            kind: Kind::Audit,
            ..record("20260102T03.w.1", 2)
        };
        let page = table.page(Kind::Audit, "20260102T03", None, 10).await;
        assert_eq!(page.unwrap().records, [event]);
        // It is moved, not copied.
        let rows = "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM logs)";
        let rows = Connection::open(&path)
            .unwrap()
            .query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(rows.unwrap(), (1, 1));
    }
}

#[tokio::test]
async fn long_expired_records_are_deleted() {
    let folder = private_folder();
    let clock = Arc::new(FixedClock::new(Timestamp::UNIX_EPOCH));
    let table = SqliteTable::open(&folder.path().join("table"), Arc::clone(&clock) as _).unwrap();
    let rows = || -> i64 {
        let connection = Connection::open(folder.path().join("table")).unwrap();
        connection
            .query_row(
                "SELECT (SELECT count(*) FROM records) + (SELECT count(*) FROM logs)",
                [],
                |row| row.get(0),
            )
            .unwrap()
    };
    let expires_at = Some(Timestamp::from_second(60).unwrap());
    for kind in [Kind::Key, Kind::Audit] {
        let expiring = Record {
            kind,
            expires_at,
            ..record("19700101T00.expiring", 1)
        };
        table.put_new(&expiring).await.unwrap();
    }
    clock.advance(Duration::from_secs(3_600));
    table.put_new(&record("a", 1)).await.unwrap();
    assert_eq!(rows(), 3, "a clock that jumped ahead destroys nothing yet");
    clock.advance(Duration::from_secs(24 * 3_600));
    table.put_new(&record("b", 1)).await.unwrap();
    assert_eq!(rows(), 2, "a and b");
}

#[tokio::test]
async fn lock_that_stays_taken_is_busy_and_named() {
    let folder = private_folder();
    let table = open(&folder);
    let other = Connection::open(folder.path().join("table")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = table.put_new(&record("id", 1)).await;
    let Err(StoreError::Busy(text)) = write else {
        panic!("{write:?}");
    };
    let path = folder.path().join("table");
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("another process keeps it locked"),
        "{text}"
    );
    assert_eq!(
        table
            .get(Kind::Key, "id", Consistency::Strong)
            .await
            .unwrap(),
        None,
        "reads go on"
    );
    other.execute_batch("ROLLBACK").unwrap();
    table.put_new(&record("id", 1)).await.unwrap();
}

#[tokio::test]
async fn full_disk_fails_the_write_only() {
    let folder = private_folder();
    let (path, identity) = file::prepare(&folder.path().join("table")).unwrap();
    let connection = schema::open(&path).unwrap();
    let watch = Arc::new(Watch::start(&path, identity).unwrap());
    let pages: i64 = connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    connection
        .pragma_update(None, "max_page_count", pages + 8)
        .unwrap();
    let table = SqliteTable {
        writer: Writer::start(connection, clock(), Arc::clone(&watch)).unwrap(),
        readers: Arc::new(Readers::new(path, watch)),
        clock: clock(),
    };
    table.put_new(&record("small", 1)).await.unwrap();
    let large = Record {
        value: vec![7; 300 * 1024],
        ..record("large", 2)
    };
    let failed = table.put_new(&large).await;
    let Err(StoreError::Away(text)) = failed else {
        panic!("{failed:?}");
    };
    assert!(text.contains("the disk is full"), "{text}");
    assert_eq!(
        table
            .get(Kind::Key, "large", Consistency::Strong)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        table
            .get(Kind::Key, "small", Consistency::Strong)
            .await
            .unwrap(),
        Some(record("small", 1))
    );
    table.put_new(&record("another", 3)).await.unwrap();
}

/// A write that fails in one transaction with others, either alone or, as with a full disk, with the transaction.
#[tokio::test(flavor = "multi_thread")]
async fn failed_write_loses_no_acknowledged_one() {
    for failure in ["ABORT", "ROLLBACK"] {
        let folder = private_folder();
        let table = open(&folder);
        let other = Connection::open(folder.path().join("table")).unwrap();
        other
            .execute_batch(&format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN new.id = CAST('id-25' AS BLOB)
                 BEGIN SELECT RAISE({failure}, 'refused'); END;
                 BEGIN IMMEDIATE;"
            ))
            .unwrap();
        let mut running = JoinSet::new();
        for n in 0..50 {
            let table = Arc::clone(&table);
            running.spawn(async move { (n, table.put_new(&record(&format!("id-{n}"), n)).await) });
        }
        // Release the lock when all writes wait, so that most of them share a transaction.
        tokio::time::sleep(Duration::from_millis(200)).await;
        other.execute_batch("COMMIT").unwrap();

        let mut failed = Vec::new();
        for (n, written) in running.join_all().await {
            let found = table
                .get(Kind::Key, &format!("id-{n}"), Consistency::Strong)
                .await
                .unwrap();
            assert_eq!(
                found.is_some(),
                written.is_ok(),
                "{failure} {n} {written:?}"
            );
            failed.extend(written.is_err().then_some(n));
        }
        assert!(failed.contains(&25), "{failed:?}");
        assert_eq!(failed.len() == 1, failure == "ABORT", "{failed:?}");
        other.execute_batch("DROP TRIGGER refuse").unwrap();
        for n in 0..50 {
            table.put_new(&record(&format!("id-{n}"), n)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_file_fails_without_panic() {
    let folder = private_folder();
    let path = folder.path().join("table");
    let table = open(&folder);
    for n in 0..500 {
        table
            .put_new(&Record {
                value: vec![7; 500],
                ..record(&format!("id-{n:04}"), 1)
            })
            .await
            .unwrap();
    }
    drop(table);
    let intact = fs::read(&path).unwrap();
    let random = SeededRandom::new(9);
    let mut failures = 0;
    for _ in 0..20 {
        let mut corrupt = intact.clone();
        for _ in 0..200 {
            // After the file's header, which shows whether the file is a Keyway table.
            let at = 100 + u64::from_be_bytes(bytes(&random)) as usize % (corrupt.len() - 100);
            corrupt[at] ^= 0x55;
        }
        fs::write(&path, corrupt).unwrap();
        let Ok(table) = SqliteTable::open(&path, clock()) else {
            failures += 1;
            continue;
        };
        failures += usize::from(table.page(Kind::Key, "", None, 1000).await.is_err());
        for n in (0..500).step_by(10) {
            let id = format!("id-{n:04}");
            failures += usize::from(
                table
                    .get(Kind::Key, &id, Consistency::Strong)
                    .await
                    .is_err(),
            );
            failures += usize::from(
                table
                    .remove(Kind::Key, &id, Revision([1; 16]))
                    .await
                    .is_err(),
            );
        }
    }
    assert!(failures > 0);
}

fn private_folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

fn open(folder: &TempDir) -> Arc<SqliteTable> {
    Arc::new(SqliteTable::open(&folder.path().join("table"), clock()).unwrap())
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(FixedClock::new(Timestamp::UNIX_EPOCH))
}

fn record(id: &str, revision: u8) -> Record {
    Record {
        kind: Kind::Key,
        id: id.to_owned(),
        revision: Revision([revision; 16]),
        value: b"value".to_vec(),
        expires_at: None,
    }
}

fn count(id: &str, count: u64) -> Record {
    Record {
        value: count.to_be_bytes().to_vec(),
        ..record(id, 0)
    }
}

fn bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes).unwrap();
    bytes
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn failure_of_sqlite_says_what_to_do_and_its_code() {
    let failure = |code, text: Option<&str>| {
        told(&rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            text.map(ToOwned::to_owned),
        ))
    };
    for (code, words) in [
        (
            4874,
            "see whether the disk is full or fails (SQLite's code 4874)",
        ),
        (5, "another process keeps it locked"),
        (8, "cannot be written"),
        (1032, "cannot be written"),
        (11, "restore it from a backup"),
        (13, "the disk is full"),
        (14, "cannot be opened"),
    ] {
        for text in [None, Some("disk I/O error")] {
            let told = failure(code, text);
            assert!(
                told.contains(words) && !told.contains("Error code"),
                "{told}"
            );
        }
    }
    let own = "the file system has no shared memory; use a local disk";
    assert_eq!(failure(10, Some(own)), own);
}

#[test]
fn damaged_table_is_refused_in_one_line_and_left_as_it_is() {
    let folder = private_folder();
    drop(open(&folder));
    let path = folder.path().join("table");
    let mut content = fs::read(&path).unwrap();
    content[100..].fill(0xA5);
    fs::write(&path, &content).unwrap();
    let error = SqliteTable::open(&path, clock()).unwrap_err();
    let text = keyway_domain::one_line(&error);
    assert!(text.contains("restore it from a backup"), "{text}");
    assert!(text.matches("damaged").count() == 1, "{text}");
    assert_eq!(fs::read(&path).unwrap(), content);
}
