//! Arbitrary input from KES: ciphertexts and stored keys. Nothing panics, nothing that was changed opens, and what is
//! sealed opens.
#![no_main]

use keyway_crypto::Key256;
use keyway_crypto::kes::{
    Algorithm, LegacyDerivation, MAX_CIPHERTEXT_BYTES, OVERHEAD_BYTES, open, seal,
};
use keyway_import::{is_key_name, key, static_key};
use libfuzzer_sys::fuzz_target;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Aes256, Algorithm::ChaCha20];
const FRESH: [u8; 32] = [9; 32];

fuzz_target!(|data: &[u8]| {
    ciphertext(data);
    honest(data);
    kept(data);
});

/// The seeds are sealed under this key, without a context.
fn the_key() -> Key256 {
    Key256::from([7; 32])
}

fn ciphertext(data: &[u8]) {
    assert!(data.len() <= MAX_CIPHERTEXT_BYTES);
    for algorithm in ALGORITHMS {
        let strict = open(&the_key(), algorithm, LegacyDerivation::Refused, data, b"");
        let lenient = open(&the_key(), algorithm, LegacyDerivation::Allowed, data, b"");
        // A ciphertext that opens without the switch opens to the same with it.
        if let Ok(plaintext) = &strict {
            assert!(lenient.as_ref().is_ok_and(|other| other.ct_eq(plaintext.expose())));
        }
        if lenient.is_ok() {
            let other_key = Key256::from([8; 32]);
            assert!(open(&other_key, algorithm, LegacyDerivation::Allowed, data, b"").is_err());
            assert!(open(&the_key(), algorithm, LegacyDerivation::Allowed, data, b"x").is_err());
        }
    }
}

fn honest(data: &[u8]) -> Option<()> {
    let (&[choice, length, high, low, change], rest) = data.split_first_chunk::<5>()?;
    let (context, plaintext) = rest.split_at_checked(length.into())?;
    let algorithm = ALGORITHMS[usize::from(choice % 2)];
    let opens = |bytes: &[u8], context: &[u8]| {
        open(&the_key(), algorithm, LegacyDerivation::Allowed, bytes, context).ok()
    };
    let mut sealed = seal(&the_key(), algorithm, context, plaintext, &FRESH).unwrap();
    assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
    assert!(opens(&sealed, context).unwrap().ct_eq(plaintext));
    assert!(opens(&sealed, &[context, b"x"].concat()).is_none());
    let position = usize::from(u16::from_be_bytes([high, low])) % sealed.len();
    assert!(opens(&sealed[..position], context).is_none(), "opened when cut short");
    sealed[position] ^= change.max(1);
    assert!(opens(&sealed, context).is_none(), "opened when changed");
    Some(())
}

/// Names and values; accepted ones are within the bounds.
fn kept(data: &[u8]) {
    if let Ok(import) = key("name", data) {
        assert!(data.len() <= keyway_import::MAX_VALUE_BYTES);
        let by = import.created_by.unwrap_or_default();
        assert!(by.chars().count() <= 256 && !by.contains(char::is_control));
    }
    if let Ok(import) = static_key(data) {
        assert!(data.len() <= keyway_import::MAX_STATIC_KEY_BYTES);
        assert!(data.starts_with(import.id.as_str().as_bytes()) || data[0].is_ascii_whitespace());
    }
    if let Ok(name) = str::from_utf8(data) {
        // Every name that KES allows for a key is allowed here.
        let short = "AAAA";
        let unnamed = key(name, short.as_bytes()).err();
        assert_eq!(unnamed == Some(keyway_import::Unreadable::Name), !is_key_name(name));
    }
}
