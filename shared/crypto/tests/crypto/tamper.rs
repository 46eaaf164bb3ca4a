//! A blob opens as it was sealed or not at all.

use keyway_crypto::{
    Blob, EncryptionContext, InvalidCiphertext, Key256, MAX_KEY_ID_BYTES, Purpose, SealError, seal,
};

const PLAINTEXT: [u8; 32] = [0x5a; 32];
const KEY_ID: &str = "my-key";
const HEADER: usize = 10 + KEY_ID.len() + 32;

fn key() -> Key256 {
    Key256::from([0x42; 32])
}

fn context() -> EncryptionContext {
    let pairs = [("object", "o"), ("tenant", "acme")];
    EncryptionContext::from_pairs(pairs.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap()
}

fn sealed_for(purpose: Purpose, version: u32, context: &EncryptionContext) -> Vec<u8> {
    seal(
        purpose,
        &key(),
        KEY_ID,
        version,
        context,
        &PLAINTEXT,
        &[9; 32],
    )
    .unwrap()
}

fn sealed() -> Vec<u8> {
    sealed_for(Purpose::Seal, 3, &context())
}

fn open(purpose: Purpose, blob: &[u8], key: &Key256, context: &EncryptionContext) -> bool {
    match Blob::parse(purpose, blob).and_then(|blob| blob.open(key, context)) {
        Ok(plaintext) => {
            assert_eq!(plaintext.expose(), PLAINTEXT);
            true
        }
        Err(InvalidCiphertext) => false,
    }
}

fn opens(blob: &[u8]) -> bool {
    open(Purpose::Seal, blob, &key(), &context())
}

#[test]
fn blob_with_any_bit_flipped_does_not_open() {
    let good = sealed();
    assert!(opens(&good));
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut blob = good.clone();
            blob[position] ^= 1 << bit;
            assert!(!opens(&blob), "byte {position}, bit {bit}");
        }
    }
}

#[test]
fn blob_with_any_header_byte_changed_does_not_open() {
    let good = sealed();
    for position in 0..HEADER - 32 {
        for value in (0..=255).filter(|value| *value != good[position]) {
            let mut blob = good.clone();
            blob[position] = value;
            assert!(!opens(&blob), "byte {position}, value {value}");
        }
    }
}

#[test]
fn header_outside_the_format_is_refused_before_a_key_lookup() {
    let good = sealed();
    let refused = |offset: usize, replacement: &[u8]| {
        let mut blob = good.clone();
        blob[offset..offset + replacement.len()].copy_from_slice(replacement);
        Blob::parse(Purpose::Seal, &blob) == Err(InvalidCiphertext)
    };
    assert!(!refused(0, &good[..10]));
    for (offset, byte) in [(0, 0xc6), (1, 0x4d), (2, 0), (2, 2), (3, 0), (3, 2), (4, 3)] {
        assert!(refused(offset, &[byte]), "byte {offset} as {byte}");
    }
    assert!(refused(5, &[0; 4]), "version 0");
    assert!(!refused(5, &[0, 0, 0, 1]), "version 1");
    assert!(refused(9, &[0]), "no key id");
    assert!(refused(9, &[129]), "key id longer than the format allows");
    assert!(refused(10, &[0xff]), "key id that is not UTF-8");
    // The shortest blob has an empty ciphertext and a whole tag.
    assert!(Blob::parse(Purpose::Seal, &good[..HEADER + 32 + 16]).is_ok());
    assert!(Blob::parse(Purpose::Seal, &good[..HEADER + 32 + 15]).is_err());
}

#[test]
fn blob_cut_or_extended_does_not_open() {
    let good = sealed();
    for length in 0..good.len() {
        assert!(!opens(&good[..length]), "first {length} bytes");
        assert!(!opens(&good[good.len() - length..]), "last {length} bytes");
        let mut blob = good.clone();
        blob.remove(length);
        assert!(!opens(&blob), "without byte {length}");
    }
    for extra in 1..64 {
        for byte in [0x00, 0x01, 0xff] {
            let mut blob = good.clone();
            blob.resize(good.len() + extra, byte);
            assert!(!opens(&blob), "{extra} more bytes of {byte}");
        }
    }
}

#[test]
fn blob_under_another_key_does_not_open() {
    let good = sealed();
    for position in 0..32 {
        let mut other = [0x42; 32];
        other[position] ^= 1;
        assert!(!open(
            Purpose::Seal,
            &good,
            &Key256::from(other),
            &context()
        ));
    }
}

#[test]
fn blob_under_another_version_or_key_id_does_not_open() {
    let good = sealed();
    for version in [1_u32, 2, 4, 0x0300_0000, u32::MAX] {
        let mut blob = good.clone();
        blob[5..9].copy_from_slice(&version.to_be_bytes());
        let parsed = Blob::parse(Purpose::Seal, &blob).unwrap();
        assert_eq!(parsed.key_version(), version);
        assert_eq!(
            parsed.open(&key(), &context()).err(),
            Some(InvalidCiphertext)
        );
    }
    for key_id in ["my-kez", "MY-KEY"] {
        let mut blob = good.clone();
        blob[10..16].copy_from_slice(key_id.as_bytes());
        assert!(!opens(&blob));
    }
    // A shorter and a longer key id, with the length byte to match.
    for key_id in ["my-ke", "my-key2"] {
        let mut blob = good[..9].to_vec();
        blob.push(key_id.len() as u8);
        blob.extend(key_id.as_bytes());
        blob.extend(&good[16..]);
        assert!(Blob::parse(Purpose::Seal, &blob).is_ok());
        assert!(!opens(&blob));
    }
}

#[test]
fn blob_under_another_context_does_not_open() {
    let map = |pairs: &[(&str, &str)]| {
        EncryptionContext::from_pairs(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
        .unwrap()
    };
    let contexts = [
        EncryptionContext::none(),
        context(),
        map(&[("object", "o")]),
        map(&[("object", "o"), ("tenant", "acme"), ("", "")]),
        map(&[("object", "o"), ("tenant", "Acme")]),
        map(&[("object", "o"), ("tenant", "acme ")]),
        map(&[("object", "o"), ("tenan", "tacme")]),
        map(&[("objecto", ""), ("tenant", "acme")]),
        EncryptionContext::opaque(vec![0]).unwrap(),
        EncryptionContext::opaque(context().encode()).unwrap(),
        EncryptionContext::opaque(context().encode().split_off(1)).unwrap(),
    ];
    for (sealed_with, context) in contexts.iter().enumerate() {
        let blob = sealed_for(Purpose::Seal, 3, context);
        for (opened_with, context) in contexts.iter().enumerate() {
            assert_eq!(
                open(Purpose::Seal, &blob, &key(), context),
                sealed_with == opened_with,
                "sealed with context {sealed_with}, opened with {opened_with}"
            );
        }
    }
}

#[test]
fn blob_of_another_purpose_does_not_open() {
    let purposes = [
        (Purpose::Seal, [0xc7, 0x4b]),
        (Purpose::Wrap, [0xc7, 0x4d]),
        (Purpose::Passphrase, [0xc7, 0x50]),
    ];
    for (sealed_for_purpose, magic) in purposes {
        let good = sealed_for(sealed_for_purpose, 3, &context());
        assert_eq!(good[..2], magic);
        for (purpose, magic) in purposes {
            let same = purpose == sealed_for_purpose;
            assert_eq!(open(purpose, &good, &key(), &context()), same);
            let mut renamed = good.clone();
            renamed[..2].copy_from_slice(&magic);
            assert_eq!(open(purpose, &renamed, &key(), &context()), same);
        }
    }
}

#[test]
fn parts_of_two_blobs_do_not_open_together() {
    let first = sealed();
    let second = seal(
        Purpose::Seal,
        &key(),
        KEY_ID,
        3,
        &context(),
        &PLAINTEXT,
        &[10; 32],
    )
    .unwrap();
    for cut in [HEADER - 1, HEADER, HEADER + 32, first.len() - 16] {
        assert!(
            !opens(&[&first[..cut], &second[cut..]].concat()),
            "cut at {cut}"
        );
    }
    assert!(opens(&second));
}

#[test]
fn random_repeated_gives_each_plaintext_its_own_key() {
    let seal_one = |plaintext: &[u8]| {
        seal(
            Purpose::Seal,
            &key(),
            KEY_ID,
            3,
            &context(),
            plaintext,
            &[0; 32],
        )
        .unwrap()
    };
    let (first, second) = (seal_one(&[1; 32]), seal_one(&[2; 32]));
    assert_ne!(first[HEADER - 32..HEADER], second[HEADER - 32..HEADER]);
    let fingerprint = |blob: &[u8]| Blob::parse(Purpose::Seal, blob).unwrap().fingerprint();
    assert_ne!(fingerprint(&first), fingerprint(&second));
    assert_eq!(first, seal_one(&[1; 32]));
}

#[test]
fn key_id_or_version_at_its_bounds_is_checked() {
    let seal_as = |key_id: &str, version: u32| {
        seal(
            Purpose::Seal,
            &key(),
            key_id,
            version,
            &context(),
            &PLAINTEXT,
            &[9; 32],
        )
    };
    for key_id in ["k".to_owned(), "k".repeat(MAX_KEY_ID_BYTES), "é".repeat(64)] {
        let blob = seal_as(&key_id, u32::MAX).unwrap();
        assert_eq!(blob.len(), PLAINTEXT.len() + key_id.len() + 90);
        assert!(opens(&blob));
    }
    for length in [0, MAX_KEY_ID_BYTES + 1, 255, 256, 257, 1 << 16] {
        let refused = seal_as(&"k".repeat(length), 1);
        assert_eq!(refused, Err(SealError::KeyIdLength(length)));
    }
    assert_eq!(seal_as(KEY_ID, 0), Err(SealError::KeyVersionZero));
}

#[test]
fn errors_and_debug_output_hold_no_content() {
    let good = sealed();
    assert_eq!(InvalidCiphertext.to_string(), "invalid ciphertext");
    let shown = format!("{:?}", Blob::parse(Purpose::Seal, &good).unwrap());
    assert_eq!(
        shown,
        "Blob { purpose: Seal, key_id: \"my-key\", key_version: 3, body_bytes: 48, .. }"
    );
}
