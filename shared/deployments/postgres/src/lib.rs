//! A deployment's table in PostgreSQL, which any number of nodes share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use keyway_deployment_assembly::secret;
use keyway_domain::doctor::{Code, Finding};
use keyway_domain::ports::Clock;
use keyway_store_postgres::{OpenError, PostgresTable, Server, ServerUrl};
use zeroize::Zeroizing;

/// The variable that holds the password.
const PASSWORD: &str = "KEYWAY_POSTGRES_PASSWORD";

/// What an error is about.
const TABLE: &str = "the table in PostgreSQL";

/// The most connections of a process, unless the settings say otherwise.
const CONNECTIONS: u16 = 16;

/// Where the deployment's database is.
#[derive(Clone, Args)]
pub struct PostgresLocation {
    /// URL of the deployment's PostgreSQL database, instead of --data-dir; set the variable if the URL has a password
    #[arg(
        long,
        env = "KEYWAY_POSTGRES",
        value_name = "URL",
        hide_env_values = true
    )]
    pub postgres: Option<String>,

    /// File whose first line is the password of --postgres (or set KEYWAY_POSTGRES_PASSWORD); read for each connection
    #[arg(
        long,
        env = "KEYWAY_POSTGRES_PASSWORD_FILE",
        value_name = "FILE",
        requires = "postgres"
    )]
    pub postgres_password_file: Option<PathBuf>,

    /// The most connections of this process to --postgres
    #[arg(long, env = "KEYWAY_POSTGRES_CONNECTIONS", value_name = "COUNT", default_value_t = CONNECTIONS,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub postgres_connections: u16,
}

impl PostgresLocation {
    /// No database.
    pub const fn nowhere() -> Self {
        Self {
            postgres: None,
            postgres_password_file: None,
            postgres_connections: CONNECTIONS,
        }
    }

    /// The URL. An empty variable counts as not set.
    fn url(&self) -> Option<&str> {
        self.postgres.as_deref().filter(|url| !url.is_empty())
    }

    /// Whether the deployment's table is in PostgreSQL.
    pub fn is_named(&self) -> bool {
        self.url().is_some()
    }

    /// The hosts and ports, for people to read; never the password.
    pub fn name(&self) -> Option<String> {
        let url: ServerUrl = self.url()?.parse().ok()?;
        Some(url.name().to_owned())
    }

    /// Connects to the database, and brings its tables up to date.
    ///
    /// # Errors
    /// When the settings contradict each other, or the database cannot be used; the text says what to do.
    pub async fn table(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<PostgresTable>> {
        let server = self.server()?;
        let connections = usize::from(self.postgres_connections);
        let table = PostgresTable::open(server, connections, clock).await;
        Ok(Arc::new(table.context(TABLE)?))
    }

    /// Connects to the database, whose tables must exist and be up to date. Changes nothing there.
    ///
    /// # Errors
    /// As [`PostgresLocation::table`], and when there are no tables or older ones.
    pub async fn existing_table(
        &self,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<PostgresTable>> {
        let server = self.server()?;
        let connections = usize::from(self.postgres_connections);
        let table = PostgresTable::open_existing(server, connections, clock).await;
        Ok(Arc::new(table.context(TABLE)?))
    }

    /// As [`PostgresLocation::existing_table`]; `None` if the database has no tables of Keyway.
    ///
    /// # Errors
    /// As [`PostgresLocation::existing_table`].
    pub async fn table_if_any(
        &self,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Option<Arc<PostgresTable>>> {
        match self.existing_table(clock).await {
            Ok(table) => Ok(Some(table)),
            Err(error) => match error.downcast_ref() {
                Some(OpenError::Missing { .. }) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The finding for a table that does not open.
    pub fn finding(&self, error: &anyhow::Error) -> Finding {
        let code = match error.downcast_ref() {
            Some(OpenError::Newer { .. }) => Code::TableNewer,
            Some(OpenError::Older { .. }) => Code::TableOlder,
            _ => Code::TableUnavailable,
        };
        let subject = format!("PostgreSQL at {}", self.name().unwrap_or_default());
        Finding::new(code, subject, format!("{error:#}"))
    }

    fn server(&self) -> anyhow::Result<Server> {
        const WHERE: &str = "--postgres (KEYWAY_POSTGRES)";
        let url = self.url().context("there is no --postgres")?;
        let mut url: ServerUrl = url.parse().context(WHERE)?;
        let file = self.postgres_password_file.clone();
        // Fails if the file's variable is empty: a file was meant.
        secret("KEYWAY_POSTGRES_PASSWORD_FILE")?;
        let given = secret(PASSWORD)?;
        let places = [url.has_password(), given.is_some(), file.is_some()];
        if places.iter().filter(|is_given| **is_given).count() > 1 {
            bail!(
                "the URL of --postgres, {PASSWORD} and --postgres-password-file: more than one gives a password; give one of them"
            );
        }
        if let Some(password) = given {
            url = url.with_password(Zeroizing::new(password.as_bytes().to_vec()));
        }
        let server = Server::new(url).context(WHERE)?;
        Ok(match file {
            Some(file) => server.with_password_file(file),
            None => server,
        })
    }
}

impl fmt::Debug for PostgresLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLocation")
            .field("hosts", &self.name())
            .finish_non_exhaustive()
    }
}
