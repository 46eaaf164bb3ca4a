//! Arbitrary files: nothing panics, a header that is read encodes to its own bytes, and no changed file decrypts.
//!
//! The input is used twice: as a file, and as material for a genuine one.
#![no_main]

use keyway_crypto::{EncryptionContext, Key256};
use keyway_files::{EncryptedFile, Header, encrypt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hostile(data);
    honest(data);
});

/// The seeds are encrypted under this data key.
fn data_key() -> Key256 {
    Key256::from([7; 32])
}

fn decrypted(file: &[u8]) -> Option<Vec<u8>> {
    let mut plaintext = Vec::new();
    let file = EncryptedFile::open(file).ok()?;
    file.decrypt(&data_key(), &mut plaintext, &mut |_| ()).ok()?;
    Some(plaintext)
}

fn encrypted(header: &Header, mut plaintext: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    encrypt(header, &data_key(), &mut plaintext, &mut file, &mut |_| ()).unwrap();
    file
}

fn hostile(data: &[u8]) {
    let mut rest = data;
    let Ok((header, _)) = Header::read(&mut rest) else {
        return;
    };
    // There is one encoding of each header.
    let length = data.len() - rest.len();
    assert_eq!(header.encoded(), &data[..length - 32]);
    assert!(!header.key_id().contains(char::is_control));
    if let Some(plaintext) = decrypted(data) {
        // It decrypts, so it was encrypted: with this header there is no other file of this plaintext.
        assert_eq!(encrypted(&header, &plaintext), data);
    }
}

fn honest(data: &[u8]) -> Option<()> {
    let (&[key_id, wrapped_key, pairs, high, low, change], rest) = data.split_first_chunk::<6>()?;
    let (key_id, rest) = rest.split_at_checked(key_id.into())?;
    let (wrapped_key, rest) = rest.split_at_checked(wrapped_key.into())?;
    let pairs = (0..pairs % 4).map(|n| (n.to_string(), change.to_string()));
    let context = EncryptionContext::from_pairs(pairs).unwrap();
    let key_id = str::from_utf8(key_id).ok()?;
    let header = Header::new(key_id, wrapped_key, &context, [9; 32]);
    let acceptable = !key_id.is_empty() && !key_id.contains(char::is_control);
    assert_eq!(header.is_ok(), acceptable && !wrapped_key.is_empty());
    let mut file = encrypted(&header.ok()?, rest);
    assert_eq!(decrypted(&file).unwrap(), rest);

    let position = usize::from(u16::from_be_bytes([high, low])) % file.len();
    assert!(decrypted(&file[..position]).is_none(), "decrypted when cut short");
    file.push(change);
    assert!(decrypted(&file).is_none(), "decrypted with a byte more");
    file.pop();
    file[position] ^= change.max(1);
    assert!(decrypted(&file).is_none(), "decrypted when changed");
    Some(())
}
