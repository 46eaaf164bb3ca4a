//! Counts failed TLS handshakes by reason, and logs them at most once a minute for each address and reason.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::{AlertDescription, Error, PeerMisbehaved};
use tokio::time::Instant;

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The client does not trust the certificate of this server.
    Untrusted,
    /// The type or the length of the client's key is not supported.
    KeyType,
    /// The client's certificate is not acceptable, or the client does not have its key.
    Certificate,
    /// Client and server have no common version of TLS, cipher or application protocol.
    Incompatible,
    /// The client does not speak TLS.
    NotTls,
    /// The client ended the handshake, by an alert or by closing the connection.
    Ended,
    /// It took too long.
    TimedOut,
    /// Anything else.
    Other,
}

const REASONS: usize = 8;

static FAILED: [AtomicU64; REASONS] = [const { AtomicU64::new(0) }; REASONS];

impl HandshakeFailure {
    /// All of them.
    pub const ALL: [Self; REASONS] = [
        Self::Untrusted,
        Self::KeyType,
        Self::Certificate,
        Self::Incompatible,
        Self::NotTls,
        Self::Ended,
        Self::TimedOut,
        Self::Other,
    ];

    /// The reason's label in metrics and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::KeyType => "key_type",
            Self::Certificate => "certificate",
            Self::Incompatible => "incompatible",
            Self::NotTls => "not_tls",
            Self::Ended => "ended",
            Self::TimedOut => "timed_out",
            Self::Other => "other",
        }
    }

    /// How often it has happened in this process.
    pub fn count(self) -> u64 {
        let [
            untrusted,
            key_type,
            certificate,
            incompatible,
            not_tls,
            ended,
            timed_out,
            other,
        ] = &FAILED;
        match self {
            Self::Untrusted => untrusted,
            Self::KeyType => key_type,
            Self::Certificate => certificate,
            Self::Incompatible => incompatible,
            Self::NotTls => not_tls,
            Self::Ended => ended,
            Self::TimedOut => timed_out,
            Self::Other => other,
        }
        .load(Ordering::Relaxed)
    }

    fn add(self) {
        if let Some(counter) = FAILED.get(self as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The message in the log, with what the operator can do.
    const fn text(self) -> &'static str {
        match self {
            Self::Untrusted => {
                "the client does not trust this server's certificate: give the client the certificate, or its authority's"
            }
            Self::KeyType => {
                "the client's key type is not supported: Ed25519, ECDSA on P-256 or P-384, or RSA of 2,048 bits and more is"
            }
            Self::Certificate => "the client's certificate is not accepted",
            Self::Incompatible => "there is no version of TLS, cipher or protocol that both speak",
            Self::NotTls => "the client does not speak TLS",
            Self::Ended => {
                "the client ended the handshake; it may have no certificate whose key type is supported"
            }
            Self::TimedOut => "the handshake took too long",
            Self::Other => "the connection broke",
        }
    }

    fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Ended,
                io::ErrorKind::TimedOut => Self::TimedOut,
                _ => Self::Other,
            };
        };
        match error {
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired,
            ) => Self::Untrusted,
            Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::Incompatible,
            Error::AlertReceived(_) => Self::Ended,
            Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme) => {
                Self::KeyType
            }
            Error::InvalidCertificate(
                rustls::CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    ..
                }
                | rustls::CertificateError::UnsupportedSignatureAlgorithmContext { .. },
            ) => Self::KeyType,
            Error::InvalidCertificate(_) => Self::Certificate,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other,
        }
    }
}

/// The shortest time between two log lines for one address and reason.
const QUIET: Duration = Duration::from_mins(1);

/// How many pairs of address and reason are remembered. Further pairs are counted and not logged.
const REMEMBERED: usize = 256;

/// When failed handshakes of one listener were logged, by address and reason.
#[derive(Default)]
pub(crate) struct Handshakes(Mutex<HashMap<(IpAddr, HandshakeFailure), Told>>);

struct Told {
    at: Instant,
    /// How many more failed since.
    since: u64,
}

impl Handshakes {
    /// Counts and logs a failed handshake. Do not call this for a connection that closed before it sent a byte: health
    /// checks of load balancers do that.
    pub(crate) fn failed(&self, address: IpAddr, error: &io::Error) {
        self.note(address, HandshakeFailure::of(error));
    }

    /// Counts and logs a handshake that timed out.
    pub(crate) fn timed_out(&self, address: IpAddr) {
        self.note(address, HandshakeFailure::TimedOut);
    }

    fn note(&self, address: IpAddr, reason: HandshakeFailure) {
        reason.add();
        if let Some(before) = self.is_due(address.to_canonical(), reason, Instant::now()) {
            tracing::warn!(
                address = %address.to_canonical(),
                reason = reason.as_str(),
                before,
                "a TLS handshake failed: {}",
                reason.text()
            );
        }
    }

    /// How many failed since the last log line, if another line is due now.
    fn is_due(&self, address: IpAddr, reason: HandshakeFailure, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = told.get_mut(&(address, reason)) {
            if now.duration_since(before.at) < QUIET {
                before.since += 1;
                return None;
            }
            before.at = now;
            return Some(std::mem::take(&mut before.since));
        }
        if told.len() >= REMEMBERED {
            told.retain(|_, told| now.duration_since(told.at) < QUIET);
        }
        if told.len() >= REMEMBERED {
            return None;
        }
        told.insert((address, reason), Told { at: now, since: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[tokio::test]
    async fn failure_is_told_once_a_minute_for_each_address_and_reason() {
        let handshakes = Handshakes::default();
        let now = Instant::now();
        let due = |number, reason, seconds| {
            handshakes.is_due(address(number), reason, now + Duration::from_secs(seconds))
        };
        assert_eq!(due(1, HandshakeFailure::KeyType, 0), Some(0));
        assert_eq!(due(1, HandshakeFailure::KeyType, 1), None);
        assert_eq!(due(1, HandshakeFailure::Untrusted, 1), Some(0));
        assert_eq!(due(2, HandshakeFailure::KeyType, 2), Some(0));
        assert_eq!(due(1, HandshakeFailure::KeyType, 59), None);
        assert_eq!(due(1, HandshakeFailure::KeyType, 60), Some(2));
        assert_eq!(due(1, HandshakeFailure::KeyType, 61), None);
    }

    #[tokio::test]
    async fn many_addresses_take_no_more_memory_than_a_few() {
        let handshakes = Handshakes::default();
        let now = Instant::now();
        for number in 0..10_000 {
            let told = handshakes.is_due(address(number), HandshakeFailure::Ended, now);
            assert_eq!(told.is_some(), number < 256, "{number}");
        }
        assert_eq!(handshakes.0.lock().unwrap().len(), REMEMBERED);
        let later = now + QUIET;
        assert_eq!(
            handshakes.is_due(address(20_000), HandshakeFailure::Ended, later),
            Some(0)
        );
        assert_eq!(handshakes.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        for reason in HandshakeFailure::ALL {
            let before = HandshakeFailure::ALL.map(HandshakeFailure::count);
            reason.add();
            let after = HandshakeFailure::ALL.map(HandshakeFailure::count);
            for (number, other) in HandshakeFailure::ALL.into_iter().enumerate() {
                if other == reason {
                    assert!(after[number] > before[number], "{reason:?}");
                }
            }
        }
    }
}
