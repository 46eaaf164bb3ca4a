//! What a failed attempt means.

use std::error::Error;

use deadpool::managed::PoolError;
use keyway_domain::one_line;
use keyway_domain::ports::StoreError;
use tokio_postgres::error::SqlState;

use crate::connect::ConnectError;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No server accepted a connection.
    Connect(ConnectError),
    /// All connections are in use.
    Exhausted,
    /// The server or the connection failed.
    Driver(tokio_postgres::Error),
    /// The server did not answer in time.
    NoAnswer,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Another attempt fails in the same way.
    Final,
    /// Another attempt may succeed.
    Again,
    /// Another attempt over a new connection may succeed.
    NewConnection,
}

impl From<PoolError<ConnectError>> for Failure {
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Backend(error) => Self::Connect(error),
            _ => Self::Exhausted,
        }
    }
}

impl Failure {
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::Connect(error) if error.is_final() => Severity::Final,
            Self::Connect(_) => Severity::Again,
            Self::Exhausted => Severity::Final,
            Self::NoAnswer => Severity::NewConnection,
            Self::Driver(error) => match error.code() {
                Some(code) if is_of_server(code) => Severity::NewConnection,
                Some(code) if is_of_moment(code) => Severity::Again,
                Some(_) => Severity::Final,
                // The connection broke.
                None => Severity::NewConnection,
            },
        }
    }

    /// Whether the statement may have taken place.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Exhausted => false,
            Self::NoAnswer => true,
            // An error that the server reports undoes the statement, except for its own end during the commit.
            Self::Driver(error) => error.code().is_none_or(is_of_server),
        }
    }

    /// The port's error.
    pub(crate) fn told(&self, what: &'static str, server: &str) -> StoreError {
        let away = |why: &str| {
            StoreError::Away(format!("could not {what}: PostgreSQL at {server}: {why}"))
        };
        match self {
            Self::Connect(error) => away(&one_line(error)),
            Self::Exhausted => {
                away("all connections are in use; the server is slow, or has too few of them")
            }
            Self::NoAnswer => away("it does not answer"),
            Self::Driver(error) => {
                let told = told(error);
                let is_away = match error.code() {
                    Some(code) => is_of_server(code) || is_of_moment(code) || is_of_resources(code),
                    None => true,
                };
                if is_away {
                    away(&told)
                } else {
                    StoreError::Failed {
                        what,
                        source: format!("PostgreSQL at {server}: {told}").into(),
                    }
                }
            }
        }
    }
}

/// The server ends, starts, or is no primary any more.
fn is_of_server(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_SESSION_TIMEOUT,
        // The statement that this connection has prepared fits the tables no more, or is gone.
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ]
    .contains(code)
        || code.code().starts_with("08")
}

/// Another transaction was in the way, or the server was slow.
fn is_of_moment(code: &SqlState) -> bool {
    [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(code)
        || code.code().starts_with("40")
}

/// The disk is full, memory is short, or there are too many connections.
fn is_of_resources(code: &SqlState) -> bool {
    code.code().starts_with("53") || code.code().starts_with("58")
}

/// What is wrong, in one line. The driver's own text leaves out what the server says.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{} (SQLSTATE {})", told.message(), told.code().code()),
        None => {
            let mut text = error.to_string();
            if let Some(source) = error.source() {
                text = format!("{text}: {}", one_line(source));
            }
            text
        }
    }
}
