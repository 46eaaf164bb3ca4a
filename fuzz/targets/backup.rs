//! Arbitrary backups: nothing panics or takes memory without limit, and what is accepted has its records in order.
//!
//! The input is used twice: as a file, and as the parts of one whose checksum is right.
#![no_main]

use std::io::Cursor;

use keyway_backup::{Bundle, Share};
use keyway_crypto::sha256;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    read(summed(data));
    if let Ok(line) = std::str::from_utf8(data)
        && let Ok(share) = Share::parse(line)
    {
        assert!(Share::parse(&share.line()).is_ok(), "its own line is refused");
    }
});

/// The bytes with the last part that belongs to them.
fn summed(data: &[u8]) -> Vec<u8> {
    let trailer = format!(
        r#"{{"sha256":"{}","root":"r1","mac":"00"}}"#,
        hex::encode(sha256(&[data]))
    );
    let length = u32::try_from(trailer.len()).unwrap().to_be_bytes();
    [data, b"Z", &length, trailer.as_bytes()].concat()
}

fn read(data: Vec<u8>) {
    let Ok(mut bundle) = Bundle::open(Cursor::new(data)) else {
        return;
    };
    let told: u64 = bundle.summary().records.values().sum();
    let mut records = bundle.records().unwrap();
    let mut count = 0;
    let mut last = None;
    while let Some(record) = records.next().unwrap() {
        let name = (record.kind, record.id);
        assert_ne!(last.as_ref(), Some(&name), "a record is there twice");
        last = Some(name);
        count += 1;
    }
    assert_eq!(count, told, "it has other records than it says");
}
