//! Encryption contexts: the documented limits hold exactly, the encoding can be read back, and no two
//! different contexts encode alike.
//!
//! The input is two contexts with `FE` between them; `FF` ends every key and every value. Neither byte
//! occurs in UTF-8.
#![no_main]

use std::collections::BTreeSet;

use keyway_crypto::{EncryptionContext, MAX_CONTEXT_CHARS};
use libfuzzer_sys::fuzz_target;

type Pairs = Vec<(String, String)>;

fuzz_target!(|data: &[u8]| {
    let mut halves = data.splitn(2, |byte| *byte == 0xfe);
    let mut next = || pairs(halves.next().unwrap_or_default());
    let (left, right) = (next(), next());
    if let (Some(left_context), Some(right_context)) = (checked(&left), checked(&right)) {
        let same = sorted(&left) == sorted(&right);
        assert_eq!(same, left_context.encode() == right_context.encode());
        assert_eq!(same, left_context == right_context);
    }
    let opaque = EncryptionContext::opaque(data.to_vec()).unwrap();
    assert_eq!(opaque.opaque_bytes().unwrap_or_default(), data);
    if !data.is_empty() {
        assert_eq!(
            opaque.encode(),
            [&[2], &be32(data.len())[..], data].concat()
        );
    }
});

fn pairs(data: &[u8]) -> Pairs {
    let texts: Vec<_> = data
        .split(|byte| *byte == 0xff)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    texts
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn sorted(pairs: &Pairs) -> Pairs {
    let mut pairs = pairs.clone();
    pairs.sort();
    pairs
}

fn checked(pairs: &Pairs) -> Option<EncryptionContext> {
    let names: BTreeSet<_> = pairs.iter().map(|(key, _)| key).collect();
    let chars: usize = pairs
        .iter()
        .map(|(key, value)| key.chars().count() + value.chars().count())
        .sum();
    let allowed = names.len() == pairs.len() && chars <= MAX_CONTEXT_CHARS;
    let context = EncryptionContext::from_pairs(pairs.clone());
    assert_eq!(context.is_ok(), allowed);
    let context = context.ok()?;

    let encoded = context.encode();
    assert_eq!(encoded.first(), Some(&context.kind()));
    assert_eq!(read_back(&encoded), sorted(pairs));
    let given: Pairs = context
        .pairs()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(given, sorted(pairs));
    let reversed = EncryptionContext::from_pairs(pairs.iter().rev().cloned()).unwrap();
    assert_eq!(reversed.encode(), encoded, "order matters");
    assert!(context.opaque_bytes().is_none());
    Some(context)
}

/// Decodes the documented encoding.
fn read_back(encoded: &[u8]) -> Pairs {
    if encoded == [0] {
        return Vec::new();
    }
    let (kind, mut rest) = encoded.split_first().unwrap();
    assert_eq!(*kind, 1);
    let count = number(&mut rest);
    assert_ne!(count, 0, "an empty map is no context");
    let pairs = (0..count)
        .map(|_| (text(&mut rest), text(&mut rest)))
        .collect();
    assert!(rest.is_empty());
    pairs
}

fn number(rest: &mut &[u8]) -> usize {
    let (number, after) = rest.split_first_chunk::<4>().unwrap();
    *rest = after;
    u32::from_be_bytes(*number).try_into().unwrap()
}

fn text(rest: &mut &[u8]) -> String {
    let length = number(rest);
    let (text, after) = rest.split_at(length);
    *rest = after;
    String::from_utf8(text.to_vec()).unwrap()
}

fn be32(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_be_bytes()
}
