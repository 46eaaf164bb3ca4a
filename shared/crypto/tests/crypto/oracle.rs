//! The crate against a second implementation, both ways, over generated inputs.

use crate::reference::{self, Context};
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose, mac_sha256, seal, sha256};
use proptest::prelude::*;
use sha2::Digest;

fn purpose() -> impl Strategy<Value = (Purpose, reference::Purpose)> {
    prop_oneof![
        Just((Purpose::Seal, reference::SEAL)),
        Just((Purpose::Wrap, reference::WRAP)),
        Just((Purpose::Passphrase, reference::PASSPHRASE)),
    ]
}

fn context() -> impl Strategy<Value = (EncryptionContext, Context)> {
    let map = prop::collection::btree_map(".{0,12}", ".{0,40}", 1..8).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.into_iter().collect();
        (
            EncryptionContext::from_pairs(pairs.clone()).unwrap(),
            Context::Map(pairs),
        )
    });
    let opaque = prop::collection::vec(any::<u8>(), 1..200).prop_map(|bytes| {
        (
            EncryptionContext::opaque(bytes.clone()).unwrap(),
            Context::Opaque(bytes),
        )
    });
    prop_oneof![
        Just((EncryptionContext::none(), Context::None)),
        map,
        opaque
    ]
}

proptest! {
    #[test]
    fn two_implementations_seal_to_the_same_bytes_and_open_each_others(
        (purpose, reference_purpose) in purpose(),
        key: [u8; 32],
        key_id in "[a-z0-9é-]{1,60}",
        version in 1_u32..,
        (context, reference_context) in context(),
        plaintext in prop::collection::vec(any::<u8>(), 0..300),
        fresh: [u8; 32],
    ) {
        let ours = seal(
            purpose, &Key256::from(key), &key_id, version, &context, &plaintext, &fresh,
        ).unwrap();
        let theirs = reference::seal(
            reference_purpose, &key, &key_id, version, &reference_context, &plaintext, &fresh,
        );
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(ours.len(), plaintext.len() + key_id.len() + 90);

        let blob = Blob::parse(purpose, &theirs).unwrap();
        prop_assert_eq!(blob.key_id(), key_id);
        prop_assert_eq!(blob.key_version(), version);
        let opened = blob.open(&Key256::from(key), &context).unwrap();
        prop_assert_eq!(opened.expose(), &plaintext);
        let opened = reference::open(reference_purpose, &key, &reference_context, &ours);
        prop_assert_eq!(opened, Some(plaintext));
    }

    /// Whatever is done to a blob, the two agree on whether it opens, and to what.
    #[test]
    fn two_implementations_judge_changed_blobs_alike(
        key: [u8; 32],
        (context, reference_context) in context(),
        plaintext in prop::collection::vec(any::<u8>(), 0..40),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut blob = seal(
            Purpose::Seal, &Key256::from(key), "my-key", 1, &context, &plaintext, &[5; 32],
        ).unwrap();
        for (position, value) in changes {
            let position = position.index(blob.len());
            blob[position] = value;
        }
        if cut {
            blob.truncate(length.index(blob.len()));
        }
        let ours = Blob::parse(Purpose::Seal, &blob)
            .and_then(|blob| blob.open(&Key256::from(key), &context))
            .map(|plaintext| plaintext.expose().to_vec());
        let theirs = reference::open(reference::SEAL, &key, &reference_context, &blob);
        prop_assert_eq!(ours.ok(), theirs);
    }

    #[test]
    fn any_bytes_given_to_the_parser_are_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        start in 0_usize..12,
    ) {
        // A valid start, so that the later fields are reached.
        let valid = [0xc7, 0x4b, 1, 1, 0, 0, 0, 0, 1, 4, b'k', b'k'];
        let bytes = [&valid[..start], &bytes].concat();
        if let Ok(blob) = Blob::parse(Purpose::Seal, &bytes) {
            prop_assert!((1..=128).contains(&blob.key_id().len()));
            prop_assert!(blob.key_version() >= 1);
            prop_assert!(blob.open(&Key256::from([1; 32]), &EncryptionContext::none()).is_err());
        }
    }

    #[test]
    fn hashes_of_two_implementations_are_equal(key: [u8; 32], message in prop::collection::vec(any::<u8>(), 0..300)) {
        let mac = mac_sha256(&Key256::from(key), &[&message]);
        prop_assert_eq!(mac.to_vec(), reference::hmac_sha256(&key, &message));
        prop_assert_eq!(sha256(&[&message]), <[u8; 32]>::from(sha2::Sha256::digest(&message)));
    }
}
