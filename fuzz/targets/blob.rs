//! Arbitrary blobs: nothing panics, a blob that opens has the claims that it shows, and no changed blob opens.
//!
//! The input is used twice: as a blob, and as material for a genuine one.
#![no_main]

use keyway_crypto::{Blob, EncryptionContext, Key256, MAX_KEY_ID_BYTES, Purpose, seal};
use libfuzzer_sys::fuzz_target;

const PURPOSES: [Purpose; 3] = [Purpose::Seal, Purpose::Wrap, Purpose::Passphrase];
const FRESH: [u8; 32] = [9; 32];

fuzz_target!(|data: &[u8]| {
    hostile(data);
    honest(data);
});

/// The seeds are sealed under this key and with these contexts.
fn key() -> Key256 {
    Key256::from([7; 32])
}

fn contexts() -> [EncryptionContext; 3] {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    [
        EncryptionContext::none(),
        EncryptionContext::from_pairs([pair("bucket", "backups"), pair("object", "2026/03")])
            .unwrap(),
        EncryptionContext::opaque(b"opaque".to_vec()).unwrap(),
    ]
}

fn hostile(data: &[u8]) {
    for purpose in PURPOSES {
        let Ok(blob) = Blob::parse(purpose, data) else {
            continue;
        };
        claims(&blob, data);
        let contexts = contexts();
        let opened: Vec<_> = contexts
            .iter()
            .filter_map(|context| Some((context, blob.open(&key(), context).ok()?)))
            .collect();
        assert!(opened.len() <= 1, "one blob opened with two contexts");
        for (context, plaintext) in &opened {
            assert!(
                blob.open(&Key256::from([8; 32]), context).is_err(),
                "opened under two keys"
            );
            // It opened, so it was sealed. Sealing its content again under its claims gives an equal blob.
            let again = seal(
                purpose,
                &key(),
                blob.key_id(),
                blob.key_version(),
                context,
                plaintext.expose(),
                &FRESH,
            )
            .unwrap();
            assert_eq!(again.len(), data.len());
            let blob_again = Blob::parse(purpose, &again).unwrap();
            assert_eq!(
                (blob_again.key_id(), blob_again.key_version()),
                (blob.key_id(), blob.key_version())
            );
            assert!(
                blob_again
                    .open(&key(), context)
                    .unwrap()
                    .ct_eq(plaintext.expose())
            );
        }
    }
}

/// A blob's claims are in its bytes, at the offsets that the format gives.
fn claims(blob: &Blob<'_>, data: &[u8]) {
    assert_eq!(blob.key_version().to_be_bytes(), data[5..9]);
    assert_ne!(blob.key_version(), 0);
    let length = usize::from(data[9]);
    assert!((1..=MAX_KEY_ID_BYTES).contains(&length));
    assert_eq!(blob.key_id().as_bytes(), &data[10..10 + length]);
    assert_eq!(blob.fingerprint(), data[10 + length + 32..][..32]);
    assert!(data.len() >= length + 90);
}

fn honest(data: &[u8]) -> Option<()> {
    let (&[choice, version, key_id_length, high, low, change], rest) =
        data.split_first_chunk::<6>()?;
    let (key_id, plaintext) = rest.split_at_checked(key_id_length.into())?;
    let key_id = str::from_utf8(key_id).ok()?;
    let contexts = contexts();
    let context = &contexts[usize::from(choice % 3)];
    let purpose = PURPOSES[usize::from(choice / 3 % 3)];
    let sealed = seal(
        purpose,
        &key(),
        key_id,
        version.into(),
        context,
        plaintext,
        &FRESH,
    );
    assert_eq!(
        sealed.is_ok(),
        version > 0 && (1..=MAX_KEY_ID_BYTES).contains(&key_id.len())
    );
    let mut bytes = sealed.ok()?;
    assert_eq!(bytes.len(), plaintext.len() + key_id.len() + 90);

    let opens = |purpose, bytes: &[u8], context: &EncryptionContext| {
        Blob::parse(purpose, bytes)
            .and_then(|blob| blob.open(&key(), context))
            .ok()
    };
    assert!(opens(purpose, &bytes, context).unwrap().ct_eq(plaintext));
    for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
        assert!(
            Blob::parse(other, &bytes).is_err(),
            "made for one purpose, parsed for another"
        );
    }
    for other in contexts.iter().filter(|other| *other != context) {
        assert!(
            opens(purpose, &bytes, other).is_none(),
            "opened with another context"
        );
    }
    let position = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
    assert!(
        opens(purpose, &bytes[..position], context).is_none(),
        "opened when cut short"
    );
    bytes.push(change);
    assert!(
        opens(purpose, &bytes, context).is_none(),
        "opened with a byte more"
    );
    bytes.pop();
    bytes[position] ^= change.max(1);
    assert!(
        opens(purpose, &bytes, context).is_none(),
        "opened when changed"
    );
    Some(())
}
