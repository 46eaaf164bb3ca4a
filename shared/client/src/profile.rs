//! The profiles in `config.toml`: how to reach each server, and as whom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Error;
use crate::files::Opened;
use crate::settings::Api;

/// The profile that is used when none is named.
pub const DEFAULT_PROFILE: &str = "default";

/// One profile. What is not in it comes from options, variables or defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) endpoint: Option<String>,
    pub(crate) api: Option<Api>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) access_key: Option<String>,
    pub(crate) secret_key: Option<Zeroizing<String>>,
    pub(crate) secret_key_file: Option<PathBuf>,
    pub(crate) session_token: Option<Zeroizing<String>>,
    pub(crate) region: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) certificate_key: Option<PathBuf>,
    pub(crate) api_key: Option<Zeroizing<String>>,
    pub(crate) api_key_file: Option<PathBuf>,
}

impl Profile {
    fn holds_secret(&self) -> bool {
        self.secret_key.is_some() || self.session_token.is_some() || self.api_key.is_some()
    }

    /// Paths are relative to the folder of the profiles' file.
    fn below(mut self, folder: &Path) -> Self {
        let paths = [
            &mut self.ca,
            &mut self.secret_key_file,
            &mut self.certificate,
            &mut self.certificate_key,
            &mut self.api_key_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&path);
        }
        self
    }
}

/// Reads a profile. Without a name it is the one that [`DEFAULT_PROFILE`] names, if there is one: neither the file nor
/// the profile need exist then.
pub(crate) fn read(file: Option<&Path>, name: Option<&str>) -> Result<Profile, Error> {
    let Some(path) = file else {
        return match name {
            None => Ok(Profile::default()),
            Some(name) => Err(Error::Settings(format!(
                "there is no profile `{name}`: neither XDG_CONFIG_HOME nor HOME says where profiles are"
            ))),
        };
    };
    if name.is_none() && !path.exists() {
        return Ok(Profile::default());
    }
    let mut file = Opened::open(path)?;
    let text = file.text()?;
    let mut profiles = parse(&text)
        .map_err(|(line, why)| Error::Settings(format!("{}:{line}: {why}", path.display())))?;
    if profiles.values().any(Profile::holds_secret) {
        file.must_be_private()?;
    }
    let found = profiles.remove(name.unwrap_or(DEFAULT_PROFILE));
    let folder = path.parent().unwrap_or(Path::new("."));
    match (found, name) {
        (Some(profile), _) => Ok(profile.below(folder)),
        (None, None) => Ok(Profile::default()),
        (None, Some(name)) => {
            let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
            Err(Error::Settings(format!(
                "there is no profile `{name}` in {}; it has: {}",
                path.display(),
                names.join(", ")
            )))
        }
    }
}

/// The profiles of a text, or the line of the first error and what it is. The parser's own text may repeat a secret, so
/// only texts about the names of fields are kept.
fn parse(text: &str) -> Result<BTreeMap<String, Profile>, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message();
        let names_a_field = ["unknown field `", "duplicate field `", "missing field `"];
        let names_a_field = names_a_field.iter().any(|begin| message.starts_with(begin));
        let why = match message.rsplit_once("expected ") {
            _ if names_a_field => message.replace('\n', " "),
            Some((_, expected)) => format!("expected {}", expected.replace('\n', " ")),
            None => "this is not TOML, or not a profile's field".to_owned(),
        };
        (line, why)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn unknown_field_is_refused_with_its_line() {
        let (line, why) =
            parse("[default]\nendpoint = \"http://x\"\nsecret = \"abc\"\n").unwrap_err();
        assert_eq!(line, 3);
        assert!(
            why.starts_with("unknown field `secret`, expected one of"),
            "{why}"
        );
    }

    #[test]
    fn faulty_profile_is_refused_without_its_values() {
        for (text, expected) in [
            ("[p]\nsecret_key = hunter2\n", 2),
            ("[p]\nsecret_key = \"hunter2\n", 2),
            ("[p]\ntimeout_seconds = \"hunter2\"\n", 2),
            ("[p]\napi = \"hunter2\"\n", 2),
            ("p = \"hunter2\"\n", 1),
            ("[p]\nsecret_key = \"a\"\nsecret_key = \"hunter2\"\n", 3),
        ] {
            let (line, why) = parse(text).unwrap_err();
            assert_eq!(line, expected, "{text}: {why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn file_with_a_secret_is_refused_when_others_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write(
            "[default]\nendpoint = \"http://x\"\n[p]\nsecret_key_file = \"s\"\n",
            0o644,
        );
        let profile = read(Some(&path), Some("p")).unwrap();
        assert_eq!(profile.secret_key_file, Some(folder.path().join("s")));
        for secret in ["secret_key", "session_token", "api_key"] {
            write(&format!("[default]\n[p]\n{secret} = \"hunter2\"\n"), 0o640);
            let refused = read(Some(&path), None).unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            read(Some(&path), None).unwrap();
        }
    }

    #[test]
    fn absent_profile_is_refused_when_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        read(Some(&path), None).unwrap();
        assert!(read(Some(&path), Some("p")).is_err());
        assert!(read(None, Some("p")).is_err());
        fs::write(&path, "[one]\n[two]\n").unwrap();
        let refused = read(Some(&path), Some("p")).unwrap_err().to_string();
        assert!(refused.ends_with("it has: one, two"), "{refused}");
    }
}
