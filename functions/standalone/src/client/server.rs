//! Which server a command calls, and as whom.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyway_client::{AccessKey, Client, Settings, secret_from_file};
use keyway_deployment_assembly::{SystemClock, duration, environment};
use zeroize::Zeroizing;

use super::usage;

/// The heading of these options in help. `next_help_heading` would also be that of the options that follow them.
const HEADING: &str = "Server";

/// Which server a command calls, and as whom. Options win over variables, and those over the profile.
#[derive(Args)]
pub(crate) struct Server {
    /// The profile in the profiles' file; without it the one with the name `default`, if there is one
    #[arg(long, help_heading = HEADING, env = "KEYWAY_PROFILE", value_name = "NAME")]
    profile: Option<String>,

    /// The profiles' file; without it keyway/config.toml in $XDG_CONFIG_HOME or ~/.config
    #[arg(long, help_heading = HEADING, env = "KEYWAY_PROFILES_FILE", value_name = "FILE")]
    profiles_file: Option<PathBuf>,

    /// The server's URL; without it http://127.0.0.1:9000, and for KES's API https://127.0.0.1:7373
    #[arg(long, help_heading = HEADING, env = "KEYWAY_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,

    /// The API that the server answers; without it RustFS's
    #[arg(long, help_heading = HEADING, env = "KEYWAY_API", value_enum, value_name = "API")]
    api: Option<Api>,

    /// The access key's id; without it and --secret-key-file, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    /// AWS_SESSION_TOKEN
    #[arg(long, help_heading = HEADING, value_name = "ID", requires = "secret_key_file")]
    access_key: Option<String>,

    /// The file of that access key's secret, which only its owner may read
    #[arg(long, help_heading = HEADING, value_name = "FILE", requires = "access_key")]
    secret_key_file: Option<PathBuf>,

    /// The region that signatures name; without it AWS_DEFAULT_REGION, or us-east-1
    #[arg(long, help_heading = HEADING, env = "AWS_REGION", value_name = "REGION")]
    region: Option<String>,

    /// The certificate authorities to trust instead of the system's, in PEM
    #[arg(long, help_heading = HEADING, env = "KEYWAY_CA_FILE", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// With KES's API: the certificate that proves who calls, in PEM
    #[arg(long, help_heading = HEADING, env = "KEYWAY_CERTIFICATE_FILE", value_name = "FILE")]
    certificate: Option<PathBuf>,

    /// With KES's API: the certificate's key, in PEM, which only its owner may read
    #[arg(long, help_heading = HEADING, env = "KEYWAY_CERTIFICATE_KEY_FILE", value_name = "FILE")]
    certificate_key: Option<PathBuf>,

    /// With KES's API: the file of an API key, which only its owner may read; without it KEYWAY_API_KEY
    #[arg(long, help_heading = HEADING, value_name = "FILE", conflicts_with_all = ["certificate", "certificate_key"])]
    api_key_file: Option<PathBuf>,

    /// How long a call may take with its retries, such as 30s or 2m; without it 30s
    #[arg(long, help_heading = HEADING, env = "KEYWAY_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Api {
    /// RustFS's KMS admin API
    #[value(name = "rustfs")]
    RustFs,
    /// KES's API
    Kes,
}

impl From<Api> for keyway_client::Api {
    fn from(api: Api) -> Self {
        match api {
            Api::RustFs => Self::RustFs,
            Api::Kes => Self::Kes,
        }
    }
}

impl Server {
    /// A client of the server. Nothing is sent yet.
    pub(crate) fn connect(self) -> anyhow::Result<Client> {
        let settings = self.settings()?;
        let clock = Arc::new(SystemClock::start());
        Ok(Client::connect(settings.connection()?, clock)?)
    }

    /// A client whose calls take at most `--timeout`, or `limit` without it, whatever the profile says; and that limit.
    pub(crate) fn connect_within(mut self, limit: Duration) -> anyhow::Result<(Client, Duration)> {
        let timeout = *self.timeout.get_or_insert(limit);
        Ok((self.connect()?, timeout))
    }

    fn settings(self) -> anyhow::Result<Settings> {
        let profiles_file = match self.profiles_file {
            Some(file) => Some(file),
            None => profiles_file()?,
        };
        let access_key = match (self.access_key, &self.secret_key_file) {
            (Some(id), Some(file)) => Some(AccessKey {
                id,
                secret: secret_from_file(file)?,
                session_token: None,
            }),
            _ => access_key_of_variables()?,
        };
        let has_certificate = self.certificate.is_some() || self.certificate_key.is_some();
        let api_key = match &self.api_key_file {
            Some(file) => Some(secret_from_file(file)?),
            None if has_certificate => None,
            None => variable("KEYWAY_API_KEY")?,
        };
        let region = match self.region {
            Some(region) => Some(region),
            None => variable("AWS_DEFAULT_REGION")?.map(|region| region.to_string()),
        };
        Ok(Settings {
            profile: self.profile,
            profiles_file,
            endpoint: self.endpoint,
            api: self.api.map(Into::into),
            access_key,
            region,
            ca: self.ca,
            certificate: self.certificate,
            certificate_key: self.certificate_key,
            api_key,
            timeout: self.timeout,
        })
    }
}

/// A variable that is set and not empty.
fn variable(name: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    environment(name).map_err(|error| usage(&error.to_string()))
}

/// Where profiles are when no option says so.
fn profiles_file() -> anyhow::Result<Option<PathBuf>> {
    let folder = match variable("XDG_CONFIG_HOME")? {
        Some(folder) => Some(PathBuf::from(folder.as_str())),
        None => variable("HOME")?.map(|home| PathBuf::from(home.as_str()).join(".config")),
    };
    Ok(folder.map(|folder| folder.join("keyway").join("config.toml")))
}

/// The access key that AWS's own tools would find in the variables.
fn access_key_of_variables() -> anyhow::Result<Option<AccessKey>> {
    let id = variable("AWS_ACCESS_KEY_ID")?;
    let secret = variable("AWS_SECRET_ACCESS_KEY")?;
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => Ok(Some(AccessKey {
            id: id.to_string(),
            secret,
            session_token: variable("AWS_SESSION_TOKEN")?,
        })),
        _ => Err(usage(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both",
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;
    use crate::Arguments;

    #[test]
    fn options_of_the_server_alone_stand_below_its_heading() {
        fn look(command: &Command, own: &[&str], found: &mut usize) {
            for argument in command.get_arguments() {
                let is_below = argument.get_help_heading() == Some(HEADING);
                *found += usize::from(is_below);
                let is_own = own.contains(&argument.get_id().as_str());
                assert!(is_own || !is_below, "{}: {argument}", command.get_name());
            }
            let below = command.get_subcommands();
            below.for_each(|command| look(command, own, found));
        }
        let server = Server::augment_args(Command::new("server"));
        let own = server.get_arguments().map(|one| one.get_id().as_str());
        let own: Vec<&str> = own.collect();
        let mut found = 0;
        look(&Arguments::command(), &own, &mut found);
        assert!(found >= 10 * own.len(), "{found}");
    }
}
