//! Shares of the secret that opens the root keyring.

use super::*;

#[tokio::test]
async fn shares_open_the_root_when_there_are_enough_of_this_bundle() {
    let from = deployment(1).await;
    let count: ShareCount = "3/5".parse().unwrap();
    let wish = || Some(RootWish::Shares(count));
    let (bytes, created) = from.bundle_of(from.place.table.as_ref(), wish()).await;
    let bundle = open(&bytes).unwrap();
    let id = bundle.header().bundle.clone();
    let lines: Vec<_> = created.shares.iter().map(Share::line).collect();
    assert_eq!(lines.len(), 5);
    let some = |which: &[usize]| {
        let parsed = which.iter().map(|n| Share::parse(&lines[*n]).unwrap());
        combine(&parsed.collect::<Vec<_>>(), &id)
    };
    for which in [&[0, 1, 2][..], &[4, 2, 0], &[0, 1, 2, 3, 4], &[1, 1, 3, 4]] {
        let secret = some(which).unwrap();
        let keyring = open_root(bundle.root().unwrap(), &secret).unwrap();
        let (root, _) = from
            .place
            .secrets
            .get(KEYRING_SECRET)
            .await
            .unwrap()
            .unwrap();
        assert!(keyring.ct_eq(root.expose()));
    }
    for which in [&[0, 1][..], &[0, 1, 1, 0]] {
        let given = 2;
        let too_few = ShareError::TooFew { given, needed: 3 };
        assert_eq!(some(which).err(), Some(too_few));
    }
    let mut mistyped = lines[0].to_string();
    let digit = mistyped.len() - 20;
    let other = if &mistyped[digit..=digit] == "0" {
        "1"
    } else {
        "0"
    };
    mistyped.replace_range(digit..=digit, other);
    assert_eq!(Share::parse(&mistyped).err(), Some(ShareError::Mistyped));
    let shouted = Share::parse(&format!(" {} \n", lines[0].to_uppercase()));
    assert!(shouted.is_ok());
    let (_, second) = from.bundle_of(from.place.table.as_ref(), wish()).await;
    assert_eq!(
        combine(&second.shares, &id).err(),
        Some(ShareError::Foreign)
    );
    let mixed: Vec<_> = created.shares.into_iter().chain(second.shares).collect();
    assert_eq!(combine(&mixed, &id).err(), Some(ShareError::Mixed));
}

#[test]
fn share_counts_need_at_least_two() {
    for text in ["3/5", "2/2", "255/255"] {
        assert_eq!(text.parse::<ShareCount>().unwrap().to_string(), text);
    }
    for text in ["1/5", "0/3", "6/5", "3/256", "3", "", "a/b", "-2/3"] {
        assert_eq!(text.parse::<ShareCount>(), Err(ShareError::Count), "{text}");
    }
    for line in [
        "",
        "kwshare1",
        "kwshare2-3of5-1-x-00-00",
        "AGE-SECRET-KEY-1",
    ] {
        assert_eq!(Share::parse(line).err(), Some(ShareError::NotAShare));
    }
}
