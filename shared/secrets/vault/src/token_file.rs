//! Reads tokens from files that another program, such as Vault's agent, writes.
//!
//! A caller who may configure the service chooses the file and the address that its content is sent to. So a file is read
//! only below folders that the operator of the process named, and only if it holds a token. Its path is opened one
//! component at a time without following links, so that the file that was checked is the one that is read.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use keyway_crypto::SecretBytes;
use keyway_domain::vault::is_token;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use zeroize::Zeroizing;

const LONGEST: usize = 4096;
/// The most components of a path below the folder.
const DEEPEST: usize = 256;

const NO_FOLDER: &str = "the operator allows no token files: name the folder of this one with --vault-token-dir (KEYWAY_VAULT_TOKEN_DIR)";
const NOT_BELOW: &str = "it is not below a folder that the operator names with --vault-token-dir (KEYWAY_VAULT_TOKEN_DIR)";
const KEPT: &str =
    "it is in or below the data folder or the root keyring's folder, where no token file may be";

/// The folders where token files may be. By default there are none.
#[derive(Debug, Clone, Default)]
pub struct TokenFolders {
    named: Option<PathBuf>,
    below: Vec<PathBuf>,
    never_below: Vec<PathBuf>,
    never_beside: Vec<&'static str>,
}

impl TokenFolders {
    /// Allows token files below these folders.
    pub fn below(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let is_named = |folder: &PathBuf| !folder.as_os_str().is_empty();
        Self {
            below: folders.into_iter().filter(is_named).collect(),
            ..Self::default()
        }
    }

    /// Allows only this file, which the operator of the process named. It may be a link, as in a volume of Kubernetes.
    pub fn only(file: PathBuf) -> Self {
        Self {
            named: Some(file),
            ..Self::default()
        }
    }

    /// Forbids token files below this folder, by whichever path it is reached.
    #[must_use]
    pub fn never_below(mut self, folder: PathBuf) -> Self {
        self.never_below.push(folder);
        self
    }

    /// Forbids token files below a folder that holds a file of this name.
    #[must_use]
    pub fn never_beside(mut self, file: &'static str) -> Self {
        self.never_beside.push(file);
        self
    }

    /// Reads the token in this file. The error says what is wrong with the file, and repeats nothing of its content.
    pub(crate) fn read(&self, path: &str) -> Result<SecretBytes, String> {
        let is_named = self.named.as_deref() == Some(Path::new(path));
        let file = match is_named {
            true => open_named(Path::new(path))?,
            false => self.open(Path::new(path))?,
        };
        let metadata = file.metadata().map_err(|error| unreadable(&error))?;
        if !metadata.is_file() {
            return Err("it is not a regular file".to_owned());
        }
        if !is_named {
            must_be_own(&metadata)?;
        }
        // Reserve enough at once: a buffer that grows leaves copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(LONGEST + 64));
        file.take(LONGEST as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|error| unreadable(&error))?;
        if content.len() > LONGEST {
            return Err("it is longer than 4 KiB".to_owned());
        }
        let line = content.strip_suffix(b"\n").unwrap_or(&content);
        let token = line.strip_suffix(b"\r").unwrap_or(line);
        match is_token(token) {
            true => Ok(SecretBytes::from(token.to_vec())),
            false => Err(
                "it does not hold one token of 1 to 512 of A-Z, a-z, 0-9, `.`, `_`, `-`".to_owned(),
            ),
        }
    }

    fn open(&self, path: &Path) -> Result<File, String> {
        if self.below.is_empty() {
            return Err(NO_FOLDER.to_owned());
        }
        for folder in &self.below {
            let Ok(real) = folder.canonicalize() else {
                continue;
            };
            let found = path
                .strip_prefix(&real)
                .or_else(|_| path.strip_prefix(folder));
            if let Ok(rest) = found {
                return self.open_below(&real, rest);
            }
        }
        Err(NOT_BELOW.to_owned())
    }

    /// Opens the file below a folder. `folder` must be its real path.
    fn open_below(&self, folder: &Path, rest: &Path) -> Result<File, String> {
        let kept: Vec<_> = self
            .never_below
            .iter()
            .filter_map(|folder| std::fs::metadata(folder).ok())
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .collect();
        for above in folder.ancestors() {
            let metadata = std::fs::metadata(above).map_err(|error| unreadable(&error))?;
            let holds = |name: &&str| above.join(name).symlink_metadata().is_ok();
            if kept.contains(&(metadata.dev(), metadata.ino()))
                || self.never_beside.iter().any(holds)
            {
                return Err(KEPT.to_owned());
            }
        }
        let names: Vec<_> = rest.components().collect();
        let is_plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let Some((last, between)) = names
            .split_last()
            .filter(|_| names.iter().all(is_plain) && names.len() <= DEEPEST)
        else {
            return Err(NOT_BELOW.to_owned());
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder_flags = flags | OFlags::DIRECTORY;
        let mut at: OwnedFd =
            rustix::fs::open(folder, folder_flags, Mode::empty()).map_err(refused)?;
        for name in between {
            at = openat(&at, name.as_os_str(), folder_flags, Mode::empty()).map_err(refused)?;
            let holds = |name: &&str| statat(&at, *name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            let metadata = File::from(at.try_clone().map_err(|error| unreadable(&error))?)
                .metadata()
                .map_err(|error| unreadable(&error))?;
            if kept.contains(&(metadata.dev(), metadata.ino()))
                || self.never_beside.iter().any(holds)
            {
                return Err(KEPT.to_owned());
            }
        }
        // Opening a pipe would wait for a writer.
        let flags = flags | OFlags::NONBLOCK;
        let file = openat(&at, last.as_os_str(), flags, Mode::empty()).map_err(refused)?;
        Ok(File::from(file))
    }
}

/// Opens the file that the operator named. Opening a pipe would wait for a writer.
fn open_named(path: &Path) -> Result<File, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.map(File::from).map_err(refused)
}

fn must_be_own(metadata: &Metadata) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(format!(
            "it belongs to user {}, and this process runs as user {user}",
            metadata.uid()
        ));
    }
    match metadata.nlink() {
        1 => Ok(()),
        _ => Err("it has more than one name (hard links)".to_owned()),
    }
}

fn refused(error: Errno) -> String {
    match error {
        Errno::LOOP | Errno::MLINK => {
            "it is a symbolic link, or reached by one, which is not followed".to_owned()
        }
        Errno::NOTDIR => {
            "what should be a folder on its path is none, or a symbolic link, which is not followed"
                .to_owned()
        }
        other => unreadable(&other.into()),
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("it cannot be read: {}", error.kind())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(folders: &TokenFolders, path: &Path) -> String {
        folders.read(path.to_str().unwrap()).err().unwrap()
    }

    fn read(folders: &TokenFolders, path: &Path) -> Vec<u8> {
        let read = folders.read(path.to_str().unwrap());
        read.map_err(|why| format!("{why} ({})", path.display()))
            .ok()
            .unwrap()
            .expose()
            .to_vec()
    }

    fn below(folder: &Path) -> TokenFolders {
        TokenFolders::below([folder.to_owned()])
    }

    #[test]
    fn file_that_the_operator_named_is_read_through_links_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let (token, link) = (folder.path().join("token"), folder.path().join("link"));
        fs::write(&token, "s.token\n").unwrap();
        symlink(&token, &link).unwrap();
        let folders = TokenFolders::only(link.clone());
        assert_eq!(read(&folders, &link), b"s.token");
        assert!(refusal(&folders, &token).contains("--vault-token-dir"));
        fs::write(&token, "not a token").unwrap();
        assert!(refusal(&folders, &link).contains("one token"));
        fs::remove_file(&token).unwrap();
        assert!(refusal(&folders, &link).contains("not found"));
    }

    #[test]
    fn token_file_holds_one_token_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let folders = below(folder.path());
        assert!(refusal(&folders, &path).contains("not found"));
        assert!(refusal(&folders, folder.path()).contains("not below"));

        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(refusal(&folders, &path).contains("regular file"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal(&folders, &path).contains("regular file"));
        fs::remove_dir(&path).unwrap();

        for (content, why) in [
            (b"".to_vec(), "one token"),
            (b"\n".to_vec(), "one token"),
            (b"  \n".to_vec(), "one token"),
            (b"s.one\n\n".to_vec(), "one token"),
            (b" s.one\n".to_vec(), "one token"),
            (b"s.one \n".to_vec(), "one token"),
            (b"s.one\ns.two".to_vec(), "one token"),
            (b"s.one\0".to_vec(), "one token"),
            (b"\xEF\xBB\xBFs.one".to_vec(), "one token"),
            (b"{\"format\":1}".to_vec(), "one token"),
            (b"correct horse s.one".to_vec(), "one token"),
            (b"s.one/+=".to_vec(), "one token"),
            (vec![0xFF; 20], "one token"),
            (vec![b'x'; 513], "one token"),
            (vec![b'x'; 4097], "longer"),
        ] {
            fs::write(&path, &content).unwrap();
            let text = refusal(&folders, &path);
            assert!(text.contains(why), "{text}");
            assert!(!text.contains("s.one") && !text.contains("xxx"), "{text}");
        }
        for content in ["hvs.CAESI-x_y", "hvs.CAESI-x_y\n", "hvs.CAESI-x_y\r\n"] {
            fs::write(&path, content).unwrap();
            assert_eq!(read(&folders, &path), b"hvs.CAESI-x_y", "{content:?}");
        }
        fs::write(&path, "x".repeat(512)).unwrap();
        assert_eq!(read(&folders, &path).len(), 512);
        // Only root may give a file away.
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
            let text = refusal(&folders, &path);
            assert!(text.contains("belongs to user 12345"), "{text}");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        fs::hard_link(&path, folder.path().join("other")).unwrap();
        assert!(refusal(&folders, &path).contains("more than one name"));
    }

    #[test]
    fn token_file_outside_of_the_named_folders_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["tokens/deep", "tokens-too", "elsewhere"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["tokens/a", "tokens/deep/b", "tokens-too/c", "elsewhere/d"] {
            fs::write(at(file), "s.token").unwrap();
        }
        let none = TokenFolders::below([PathBuf::new()]);
        assert!(refusal(&none, &at("tokens/a")).contains("--vault-token-dir"));
        assert!(refusal(&TokenFolders::default(), &at("tokens/a")).contains("--vault-token-dir"));

        let folders = TokenFolders::below([at("missing"), at("tokens")]);
        assert_eq!(read(&folders, &at("tokens/a")), b"s.token");
        assert_eq!(read(&folders, &at("tokens/deep/b")), b"s.token");
        for outside in ["tokens-too/c", "elsewhere/d", "tokens/../elsewhere/d"] {
            let text = refusal(&folders, &at(outside));
            assert!(text.contains("--vault-token-dir"), "{outside}: {text}");
        }

        // Links to files and to folders are not followed.
        symlink(at("elsewhere/d"), at("tokens/link")).unwrap();
        symlink(at("elsewhere"), at("tokens/folder")).unwrap();
        symlink(at("tokens/a"), at("tokens/own")).unwrap();
        for link in ["tokens/link", "tokens/folder/d", "tokens/own"] {
            let text = refusal(&folders, &at(link));
            assert!(text.contains("symbolic link"), "{link}: {text}");
        }
        // The operator may name the folder itself by a link.
        symlink(at("tokens"), at("named")).unwrap();
        let folders = below(&at("named"));
        assert_eq!(read(&folders, &at("named/a")), b"s.token");
        assert_eq!(read(&folders, &at("tokens/a")), b"s.token");
    }

    #[test]
    fn token_file_below_a_protected_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["data/tokens", "ring/tokens", "free"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "data/a",
            "data/tokens/a",
            "ring/a",
            "ring/tokens/a",
            "free/a",
        ] {
            fs::write(at(file), "s.token").unwrap();
        }
        fs::write(at("ring/root-keyring.secret"), "{}").unwrap();
        symlink(at("data"), at("alias")).unwrap();
        for named in ["", "data", "data/tokens", "ring", "ring/tokens", "alias"] {
            let folders = below(&at(named))
                .never_below(at("data"))
                .never_beside("root-keyring.secret");
            for file in [
                "data/a",
                "data/tokens/a",
                "ring/a",
                "ring/tokens/a",
                "alias/a",
            ] {
                assert!(
                    folders.read(at(file).to_str().unwrap()).is_err(),
                    "{named}: {file}"
                );
            }
            assert_eq!(
                folders.read(at("free/a").to_str().unwrap()).is_ok(),
                named.is_empty()
            );
        }
        // The forbidden folder is named by a link.
        let folders = below(root.path()).never_below(at("alias"));
        assert!(refusal(&folders, &at("data/tokens/a")).contains("data folder"));
    }
}
