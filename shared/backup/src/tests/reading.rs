//! Bundles that are read: whole, cut, changed, forged.

use super::*;

#[tokio::test]
async fn bundle_has_every_record_as_it_is_stored() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    let mut bundle = open(&bytes).unwrap();
    let header = bundle.header().clone();
    assert_eq!(header.created_at, NOW.parse::<Timestamp>().unwrap());
    assert_eq!(header.root, None);
    assert!(bundle.summary().is_one_moment);
    let last = bundle.summary().last_audit_record.as_deref();
    assert_eq!(last, Some("20260102T030405.100000Z.w.000000000000"));
    assert_eq!(bundle.summary().records["key"], 2);
    let mut records = bundle.records().unwrap();
    let mut count = 0;
    while let Some(record) = records.next().unwrap() {
        assert_eq!(from.stored(record.kind, &record.id).await, Some(record));
        count += 1;
    }
    assert_eq!(count, 12, "with the deployment and the configuration");
}

#[tokio::test]
async fn bundle_is_authentic_under_its_own_keyring_alone() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    let bundle = open(&bytes).unwrap();
    let keyring = from.keyring.keyring().await.unwrap();
    assert_eq!(bundle.must_be_authentic(&keyring), Ok(()));
    let other = deployment(2).await;
    let keyring = other.keyring.keyring().await.unwrap();
    let judged = bundle.must_be_authentic(&keyring);
    assert_eq!(judged, Err(BundleForgery::Altered));
}

#[tokio::test]
async fn bundle_forged_with_a_right_checksum_is_refused_by_restore() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    // Another deployment's keyring makes the checksum and the MAC.
    let other = deployment(2).await.bundle().await;
    let trailer = |bytes: &[u8]| {
        let at = bytes
            .windows(9)
            .rposition(|window| window == b"{\"sha256\"");
        at.unwrap()
    };
    let digest = open(&bytes).unwrap();
    let digest = hex::encode(digest.digest());
    let mut forged = bytes.get(..trailer(&bytes)).unwrap().to_vec();
    let end = String::from_utf8(other.get(trailer(&other)..).unwrap().to_vec()).unwrap();
    let told = hex::encode(open(&other).unwrap().digest());
    forged.extend_from_slice(end.replace(&told, &digest).as_bytes());
    assert!(open(&forged).is_ok(), "its checksum is right");
    let refused = restored(&from.place, &forged, None, &RestoreOptions::default()).await;
    assert!(matches!(
        refused,
        Err(RestoreError::NotAuthentic(BundleForgery::Altered))
    ));
}

#[tokio::test]
async fn bundle_cut_or_changed_anywhere_is_refused() {
    let bytes = deployment(1).await.bundle().await;
    for end in 0..bytes.len() {
        assert!(open(bytes.get(..end).unwrap()).is_err(), "{end}");
    }
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        let judged = open(&changed);
        // The MAC and the root key's id are judged with the keyring.
        let is_in_trailer = position > bytes.len() - 100;
        assert!(judged.is_err() || is_in_trailer, "{position}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(open(&longer), Err(BundleError::Malformed(_))));
}

#[tokio::test]
async fn bundle_of_a_later_version_says_so() {
    let mut bytes = deployment(1).await.bundle().await;
    bytes[14] = b'2';
    assert!(matches!(open(&bytes), Err(BundleError::Newer)));
    assert!(matches!(open(b"KW1 "), Err(BundleError::NotABundle)));
    assert!(matches!(open(b""), Err(BundleError::NotABundle)));
}

#[test]
fn frame_that_claims_more_than_it_may_have_takes_no_memory() {
    for kind in b"HKRCDEZ?" {
        let mut bytes = b"keyway-backup 1\n".to_vec();
        bytes.push(*kind);
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            open(&bytes),
            Err(BundleError::Malformed("a part is too long"))
        ));
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(open(&bytes).is_err());
        let framed = [b"keyway-backup 1\n", &bytes[..]].concat();
        prop_assert!(open(&framed).is_err());
    }

    #[test]
    fn records_come_back_as_they_were(
        ids in proptest::collection::btree_set("[a-zA-Z0-9é/*.]{1,40}", 0..20),
        value in proptest::collection::vec(any::<u8>(), 0..2000),
        expiry in proptest::option::of(253_000_000_000_i64..253_400_000_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let written = runtime.block_on(async {
            let from = opened(place(5)).await;
            for id in &ids {
                let record = Record {
                    kind: Kind::Key,
                    id: id.clone(),
                    revision: from.revision(),
                    value: value.clone(),
                    expires_at: expiry.map(|at| Timestamp::from_second(at).unwrap()),
                };
                from.signed.put_new(&record).await.unwrap();
            }
            let table = from.place.table.as_ref();
            let (bytes, _) = from.bundle_with(table, None, Logs::Without).await;
            let mut bundle = open(&bytes).unwrap();
            let mut records = bundle.records().unwrap();
            let mut count = 0;
            while let Some(record) = records.next().unwrap() {
                assert_eq!(from.stored(record.kind, &record.id).await, Some(record));
                count += 1;
            }
            count
        });
        prop_assert_eq!(written, ids.len() + 1);
    }
}
