//! Findings about a deployment's health: their codes, their severities and what to do.

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Notice,
    /// Something has to be done, not at once.
    Warning,
    /// Something does not work, or is not safe.
    Error,
}

impl Severity {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Defines the codes with their severities, meanings and actions.
macro_rules! codes {
    ($($code:ident $name:literal $severity:ident $meaning:literal $action:literal;)*) => {
        /// The code of a finding. Its name never changes, so that programs can rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
        }

        impl Code {
            /// Every code, in the order of the checks.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity,)* }
            }

            /// What was found, in one sentence for every finding of this code.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }

            /// What to do; empty if there is nothing to do.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$code => $action,)* }
            }
        }
    };
}

codes! {
    CheckFailed "check-failed" Warning
        "A check could not run, so its subject is not known to be well."
        "Remove the cause that is named, and run the command again.";
    FilesOk "files-ok" Ok
        "Only the owner can reach the deployment's files and folders." "";
    FilePermissions "file-permissions" Error
        "Other users can reach a file or folder, or another user owns it."
        "Run the command that the text names, as the file's owner or as root.";
    FileMissing "file-missing" Error
        "A file or folder of the deployment is missing."
        "Restore it from a backup; name the right folder if this one is wrong.";
    DiskOk "disk-ok" Ok
        "The disk has room." "";
    DiskLow "disk-low" Warning
        "The disk has less than 1 GiB or less than 5 % of room."
        "Make room, or move the data folder to a larger disk.";
    DiskFull "disk-full" Error
        "The disk has less than 64 MiB of room; writes fail when it is full."
        "Make room at once, or move the data folder to a larger disk.";
    LogOk "write-ahead-log-ok" Ok
        "SQLite's write-ahead log is small." "";
    LogLarge "write-ahead-log-large" Warning
        "SQLite's write-ahead log has over 64 MiB: it could not be written back into the table."
        "End the process that keeps a read of the table open; a restart of the servers writes the log back.";
    TableUnavailable "table-unavailable" Error
        "The table cannot be read."
        "Remove the cause that is named.";
    TableNewer "table-newer" Error
        "A newer release wrote the table, which this release does not read."
        "Run the newer release.";
    TableOlder "table-older" Notice
        "The table has the schema of an older release."
        "Start a server of this release once; it brings the schema up to date.";
    KeyringOk "keyring-ok" Ok
        "The root keyring opens and belongs to the table." "";
    KeyringUnusable "keyring-unusable" Error
        "The root keyring does not open, or belongs to another table. Without it, no key can be used."
        "Restore the keyring or its passphrase; servers that still run can write it again with `keyway root save`.";
    RootAgeOk "root-age-ok" Ok
        "The newest root key is less than a year old." "";
    RootOld "root-old" Notice
        "The newest root key is over a year old."
        "Rotate it with `keyway root rotate` if your policy asks for that.";
    RootFormer "root-former" Notice
        "The keyring still has a root key that was rotated away."
        "Run `keyway root rewrap` while records refer to it, and then `keyway root retire`.";
    RecordsOk "records-ok" Ok
        "Every record of the table is signed and verifies." "";
    RecordsUnsigned "records-unsigned" Warning
        "The table accepts records without a signature, so a forged one would be obeyed."
        "Run `keyway table sign`.";
    RecordRefused "record-refused" Error
        "A record was not written with the root keyring, or was changed; servers refuse it."
        "Find out who wrote it. Restore it from a backup; `keyway table verify` lists all of them.";
    RecordUnreadable "record-unreadable" Error
        "A record does not decode: it is damaged, or a newer release wrote it."
        "Run the newer release, or restore the record from a backup.";
    BackendOk "backend-ok" Ok
        "The backend wraps and unwraps." "";
    BackendSlow "backend-slow" Warning
        "The backend took over a second."
        "Look for the cause at the backend and the network; keys that are not cached wait for it.";
    BackendUnavailable "backend-unavailable" Error
        "The backend does not wrap or unwrap, so keys that are not cached cannot be used."
        "Remove the cause that is named.";
    ServiceNotConfigured "service-not-configured" Notice
        "The service was never configured, so it refuses keys and data keys."
        "Configure and start it, or start the server with --start.";
    ServiceStopped "service-stopped" Warning
        "The service is stopped, so it refuses keys and data keys."
        "Start it, unless it is stopped on purpose.";
    KeysOk "keys-ok" Ok
        "No key is pending deletion." "";
    KeyPendingDeletion "key-pending-deletion" Notice
        "A key will be destroyed on the date that is named; nothing opens its ciphertexts afterwards."
        "Cancel the deletion if the key is still needed.";
    KeyDeletionOverdue "key-deletion-overdue" Warning
        "A key should have been destroyed over a day ago; no janitor seems to run."
        "Start a server, or on AWS look at the janitor function's log.";
    WrappersOk "wrappers-ok" Ok
        "Every key is wrapped by the configured backend." "";
    KeyWrappedElsewhere "key-wrapped-elsewhere" Warning
        "Keys are wrapped by another backend than the configured one, which they still need."
        "Run `keyway rewrap-keys`.";
    KeyUnopenable "key-unopenable" Error
        "Keys are wrapped by a Vault, and none is configured."
        "Configure the Vault that wrapped them, and run `keyway rewrap-keys`.";
    AccessKeysOk "access-keys-ok" Ok
        "Every access key is in use, or new." "";
    AccessKeyExpired "access-key-expired" Notice
        "An access key has expired and is refused. The table removes it a day after."
        "Give its holder a new one if it is still needed.";
    AccessKeyExpires "access-key-expires" Notice
        "An access key expires within a week."
        "Give its holder a new one before.";
    AccessKeyReplacedInUse "access-key-replaced-in-use" Warning
        "An access key was rotated, and its holder still uses the old one, which ends on the date that is named."
        "Give the new one to everybody who uses the old one.";
    AccessKeyUnused "access-key-unused" Warning
        "No server has recorded a use of an access key for 90 days."
        "Revoke it if nobody needs it. Functions on AWS record no use, and keys that only they see look unused.";
    AccessKeyUsesUnknown "access-key-uses-unknown" Notice
        "Servers have recorded uses of access keys for less than 90 days, so which keys are unused is not known."
        "Run the command again later. Functions on AWS record no use.";
    AccessKeyPolicyInvalid "access-key-policy-invalid" Warning
        "An access key's policy is invalid, so the key may do nothing."
        "Make another access key with a valid policy, and revoke this one.";
    ClockOk "clock-ok" Ok
        "This machine's clock agrees with the dates that it was compared with." "";
    ClockDiffers "clock-differs" Warning
        "This machine's clock differs by over 30 seconds from another date."
        "Set both clocks by NTP.";
    ClockWrong "clock-wrong" Error
        "This machine's clock differs by over 5 minutes from another date; AWS refuses signatures then."
        "Find out which clock is wrong, and set it by NTP.";
    CertificateOk "certificate-ok" Ok
        "A certificate is valid for over 30 days." "";
    CertificateExpires "certificate-expires" Warning
        "A certificate expires within 30 days."
        "Renew it in place; servers read it again when it changes.";
    CertificateInvalid "certificate-invalid" Error
        "A certificate has expired or is not valid yet, so clients refuse it."
        "Renew it in place; servers read it again when it changes.";
    CertificateUnreadable "certificate-unreadable" Error
        "A certificate's or key's file cannot be read, or holds none, or the two do not belong together."
        "Put the right file in its place.";
    EndpointOk "endpoint-ok" Ok
        "A server answers at the endpoint." "";
    EndpointUnavailable "endpoint-unavailable" Error
        "No server answers at the endpoint, or it is not ready."
        "Start it, or look at its log.";
    AuditOk "audit-ok" Ok
        "The audit log of the last day is whole." "";
    AuditEmpty "audit-empty" Notice
        "The table has no audit events of the last day."
        "Nothing, if no requests came or the audit log goes to standard output only.";
    AuditLost "audit-lost" Warning
        "The table did not get some audit events of the last day. Standard output has them."
        "Keep standard output's log of that time; look for the cause in the server's log.";
    AuditGap "audit-gap" Error
        "Audit events of the last day are missing or were altered."
        "Find out who could write the table; `keyway audit verify` shows the whole log.";
    BackupOk "backup-ok" Ok
        "The backup is less than 8 days old." "";
    BackupOld "backup-old" Warning
        "The backup is over 8 days old."
        "Make a new one.";
    BackupUnknown "backup-unknown" Notice
        "No backup was named, so its age is not known."
        "Name the newest one with --backup.";
}

/// The result of one check on one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub code: Code,
    /// What it was found of: a path, a key, an address. Never a secret.
    pub subject: String,
    /// What was seen, in words.
    pub seen: String,
}

impl Finding {
    /// A finding.
    pub fn new(code: Code, subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            code,
            subject: subject.into(),
            seen: seen.into(),
        }
    }

    /// A check of this subject that could not run.
    pub fn failed(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Code::CheckFailed, subject, why)
    }

    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// The worst severity of these findings.
pub fn worst(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(Finding::severity);
    severities.max().unwrap_or(Severity::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ_and_each_bad_one_says_what_to_do() {
        let names: std::collections::HashSet<&str> =
            Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.meaning().ends_with('.'), "{code:?}");
            let is_ok = code.severity() == Severity::Ok;
            assert_eq!(code.action().is_empty(), is_ok, "{code:?}");
        }
    }

    #[test]
    fn worst_of_no_findings_is_ok_and_of_several_the_worst() {
        let of = |codes: &[Code]| {
            let found = codes.iter().map(|code| Finding::new(*code, "", ""));
            worst(&found.collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Severity::Ok);
        let mixed = [Code::FilesOk, Code::DiskFull, Code::RootOld, Code::DiskLow];
        assert_eq!(of(&mixed), Severity::Error);
        assert_eq!(of(&[Code::FilesOk, Code::RootOld]), Severity::Notice);
    }
}
