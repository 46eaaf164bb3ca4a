//! The audit log: one event for each request, chained, on standard output before the answer is sent, and in the table.
//!
//! **Invariant:** an event holds no body, query, header or key; of an encryption context, names (values only if configured).
//!
//! **Chains:** a process writes two. The first has every event of the table, without a gap. The second is on standard
//! output alone: the requests of unauthenticated callers that the table only counts. So a flood of them costs no
//! table writes, and the table's chain can still be verified.

mod background;
mod chain;
pub mod doctor;
mod encoding;
mod errors;
mod follow;
mod lines;
mod operator;
mod output;
mod packed;
mod reading;
mod table;
mod verify;
mod wrapped;
mod writer;

pub use errors::ErrorLog;
pub use follow::{ErrorLines, Following};
pub use operator::{OperatorAction, OperatorEvent, OperatorLog};
pub use packed::text;
pub use reading::TableLog;
pub use table::AuditTable;
pub use verify::{
    Finding, KnownEvent, NotAnEvent, RestoredBackup, Verified, Verifier, WriterReport,
};
pub use writer::{
    AuditWriter, AuditWriterMetrics, AuditWriterSettings, Contexts, Flushing, Strictness,
};

/// The bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut text = vec![0; bytes.len() * 2];
    for ([high, low], byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        (*high, *low) = (digit(byte >> 4), digit(byte & 15));
    }
    String::from_utf8(text).unwrap_or_default()
}
