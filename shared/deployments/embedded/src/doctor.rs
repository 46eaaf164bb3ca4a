//! Examines the files of a deployment in a data folder, and opens its ports for reading alone. No file changes.

mod certificates;
mod endpoints;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use keyway_deployment_assembly::{Reading, SystemClock, SystemRandom, VaultFiles, vaults};
use keyway_domain::doctor::{Code, Finding};
use keyway_domain::keyring::KeyringOnDemand;
use keyway_domain::ports::{Clock, Random, SecretStore, TableReader};
use keyway_domain::records::SignedTable;
use keyway_ownership::{Unfit, Volume, check_file, check_folder};
use keyway_secrets_file::FileSecrets;
use keyway_store_sqlite::{OpenError, SqliteReader};

pub use certificates::{Purpose, backup_finding, certificate_findings};
pub use endpoints::endpoint_findings;

use crate::{
    KEYRING_FILE, Operator, TABLE_FILE, VAULT_TIMEOUT, configured_folder, never_in_folder,
    own_folder,
};

const MIB: u64 = 1024 * 1024;
/// A write of the table needs a few MiB.
const DISK_FULL: u64 = 64 * MIB;
const DISK_LOW: u64 = 1024 * MIB;
const DISK_LOW_PERCENT: u64 = 5;
/// SQLite writes the log back into the table at 4 MiB.
const LOG_LARGE: u64 = 64 * MIB;

/// What is known of the files, and the ports as far as they open.
pub struct Inspected {
    /// Findings about files, folders and the disk.
    pub findings: Vec<Finding>,
    /// The table without the keyring, and the clock; `None` if the table does not open.
    pub unverified: Option<(Arc<dyn TableReader>, Arc<dyn Clock>)>,
    /// The ports. Their keyring is opened when it is first needed.
    pub ports: Option<Reading>,
    /// The addresses of services whose dates the clock is compared with.
    pub dated: Vec<String>,
}

/// Examines the files of the deployment in the data folder, and opens its table and keyring for reading. `elsewhere` is the
/// store of a root keyring that is no file.
pub async fn inspect(
    operator: &Operator,
    files: &VaultFiles,
    elsewhere: Option<anyhow::Result<Arc<dyn SecretStore>>>,
) -> Inspected {
    let mut inspected = Inspected {
        findings: disk(&operator.data_dir),
        unverified: None,
        ports: None,
        dated: Vec::new(),
    };
    let findings = &mut inspected.findings;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let path = operator.data_dir.join(TABLE_FILE);
    findings.push(log(&path));
    let table = match SqliteReader::open(&path, Arc::clone(&clock)) {
        Ok(table) => Arc::new(table),
        Err(error) => {
            let own = own_folder(operator);
            findings.extend(match elsewhere {
                Some(_) => owners(&[&operator.data_dir]),
                None => owners(&[&operator.data_dir, &own]),
            });
            findings.push(unavailable(&path, &error));
            return inspected;
        }
    };
    if !table.has_newest_schema() {
        let seen = "the next start of a server updates it";
        findings.push(Finding::new(Code::TableOlder, shown(&path), seen));
    }
    inspected.unverified = Some((Arc::clone(&table) as _, Arc::clone(&clock)));
    let secrets = match elsewhere {
        Some(secrets) => {
            findings.extend(owners(&[&operator.data_dir]));
            secrets
        }
        None => in_folder(operator, table.as_ref(), findings).await,
    };
    let opened = secrets.and_then(|secrets| open(operator, files, secrets, table, clock));
    match opened {
        Ok(ports) => inspected.ports = Some(ports),
        Err(error) => {
            let seen = format!("{error:#}");
            findings.push(Finding::new(Code::KeyringUnusable, "root keyring", seen));
        }
    }
    inspected
}

/// The store of the root keyring's file, and findings about its folder and the data folder.
async fn in_folder(
    operator: &Operator,
    table: &SqliteReader,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<Arc<dyn SecretStore>> {
    let folder = match configured_folder(table).await {
        Ok(configured) => configured.map_or_else(|| own_folder(operator), PathBuf::from),
        Err(error) => {
            findings.push(Finding::failed(
                "root keyring's folder",
                format!("{error:#}"),
            ));
            own_folder(operator)
        }
    };
    findings.extend(owners(&[&operator.data_dir, &folder]));
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let secrets = FileSecrets::inspect(&folder, operator.passphrase()?, random)?;
    Ok(Arc::new(secrets))
}

fn open(
    operator: &Operator,
    files: &VaultFiles,
    secrets: Arc<dyn SecretStore>,
    table: Arc<SqliteReader>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Reading> {
    keyway_crypto::self_test().context("the cryptography of this build does not work")?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let stored: Arc<dyn TableReader> = table;
    let keyring = Arc::new(KeyringOnDemand::opening(
        Arc::clone(&stored),
        secrets,
        Arc::clone(&clock),
        Arc::clone(&random),
    ));
    let token_folders = files.token_folders().never_beside(KEYRING_FILE);
    let token_folders = never_in_folder(token_folders, operator);
    Ok(Reading {
        table: Arc::new(SignedTable::new(Arc::clone(&stored), Arc::clone(&keyring))),
        stored,
        wrapper: Arc::clone(&keyring) as _,
        keyring,
        vaults: vaults(&clock, VAULT_TIMEOUT, files, token_folders)?,
        folder: None,
        changes: None,
        clock,
        random,
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn unavailable(path: &Path, error: &OpenError) -> Finding {
    let code = match error {
        OpenError::Newer { .. } => Code::TableNewer,
        OpenError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Code::FileMissing,
        _ => Code::TableUnavailable,
    };
    Finding::new(code, shown(path), error.to_string())
}

/// Who can reach these folders and their files. The first one is the data folder.
fn owners(folders: &[&Path]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut looked = 0;
    for folder in folders {
        match contents(folder) {
            Ok((unfit, count)) => {
                looked += count;
                findings.extend(unfit);
            }
            Err(finding) => findings.push(finding),
        }
    }
    if findings.is_empty() {
        let seen = format!("{looked} files and folders");
        let data_dir = folders.first().map(|folder| shown(folder));
        findings.push(Finding::new(
            Code::FilesOk,
            data_dir.unwrap_or_default(),
            seen,
        ));
    }
    findings
}

/// The findings about a folder and the files in it, and how many there are.
fn contents(folder: &Path) -> Result<(Vec<Finding>, u64), Finding> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Finding::new(Code::FileMissing, shown(folder), error.to_string()),
        _ => Finding::failed(shown(folder), error.to_string()),
    };
    let metadata = fs::metadata(folder).map_err(failed)?;
    let (volume, mut findings) = match check_folder(folder, &metadata) {
        Ok(volume) => (volume, Vec::new()),
        Err(unfit) => (None, vec![permissions(folder, &unfit)]),
    };
    let mut looked = 1;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        findings.extend(file(&path, volume));
        looked += 1;
    }
    Ok((findings, looked))
}

fn file(path: &Path, volume: Option<Volume>) -> Option<Finding> {
    match fs::symlink_metadata(path) {
        // A certificate is public; its key is not.
        Ok(_) if path.extension().is_some_and(|extension| extension == "crt") => None,
        Ok(metadata) if metadata.is_file() => {
            let unfit = check_file(path, &metadata, volume).err()?;
            Some(permissions(path, &unfit))
        }
        Ok(_) => None,
        // SQLite and the servers remove files at any time.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Finding::failed(shown(path), error.to_string())),
    }
}

fn permissions(path: &Path, unfit: &Unfit) -> Finding {
    Finding::new(Code::FilePermissions, shown(path), unfit.to_string())
}

/// The size of the write-ahead log of the table in this file.
fn log(table: &Path) -> Finding {
    let mut name = table.as_os_str().to_owned();
    name.push("-wal");
    let path = PathBuf::from(name);
    let size = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Finding::failed(shown(&path), error.to_string()),
    };
    let code = if size > LOG_LARGE {
        Code::LogLarge
    } else {
        Code::LogOk
    };
    Finding::new(code, shown(&path), format!("it has {} KiB", size / 1024))
}

/// The room on the folder's disk.
fn disk(folder: &Path) -> Vec<Finding> {
    match rustix::fs::statvfs(folder) {
        Ok(disk) => {
            let room = disk.f_bavail.saturating_mul(disk.f_frsize);
            let size = disk.f_blocks.saturating_mul(disk.f_frsize);
            vec![judge_disk(shown(folder), room, size)]
        }
        // Its absence is a finding of its own.
        Err(error) if error == rustix::io::Errno::NOENT => Vec::new(),
        Err(error) => vec![Finding::failed("disk", error.to_string())],
    }
}

fn judge_disk(subject: String, room: u64, size: u64) -> Finding {
    let percent = room.saturating_mul(100).checked_div(size).unwrap_or(100);
    let code = if room < DISK_FULL {
        Code::DiskFull
    } else if room < DISK_LOW || percent < DISK_LOW_PERCENT {
        Code::DiskLow
    } else {
        Code::DiskOk
    };
    let seen = format!("its disk has {} MiB of room, {percent} %", room / MIB);
    Finding::new(code, subject, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_is_judged_by_its_room_and_its_share() {
        const GIB: u64 = 1024 * MIB;
        for (room, size, code) in [
            (100 * GIB, 1000 * GIB, Code::DiskOk),
            (40 * GIB, 1000 * GIB, Code::DiskLow),
            (2 * GIB, 10 * GIB, Code::DiskOk),
            (GIB - 1, 10 * GIB, Code::DiskLow),
            (DISK_FULL - 1, GIB, Code::DiskFull),
            (2 * GIB, 0, Code::DiskOk),
        ] {
            assert_eq!(judge_disk(String::new(), room, size).code, code, "{room}");
        }
    }

    #[test]
    fn log_is_judged_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("keyway.db");
        assert_eq!(log(&table).code, Code::LogOk);
        let wal = fs::File::create(folder.path().join("keyway.db-wal")).unwrap();
        wal.set_len(LOG_LARGE + 1).unwrap();
        assert_eq!(log(&table).code, Code::LogLarge);
    }
}
