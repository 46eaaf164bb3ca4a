//! The context encoding is injective, and every limit is where it is documented.

use crate::reference::Context;
use keyway_crypto::{ContextError, EncryptionContext};
use proptest::prelude::*;

fn from(pairs: &[(String, String)]) -> Result<EncryptionContext, ContextError> {
    EncryptionContext::from_pairs(pairs.to_vec())
}

fn pair(key: usize, value: usize) -> (String, String) {
    ("k".repeat(key), "v".repeat(value))
}

fn numbered(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("key-{n}"), String::new()))
        .collect()
}

/// Few letters and short texts, so that near misses come up often: `("a", "b")` and `("ab", "")`,
/// or a text that looks like a length.
fn any_context() -> impl Strategy<Value = Context> {
    let text = "[ab\u{0}\u{1}é]{0,4}";
    prop_oneof![
        1 => Just(Context::None),
        6 => prop::collection::btree_map(text, text, 0..4)
            .prop_map(|pairs| Context::Map(pairs.into_iter().collect())),
        3 => prop::collection::vec(0_u8..4, 0..12).prop_map(Context::Opaque),
        // Opaque bytes that are themselves the encoding of a map.
        2 => prop::collection::btree_map(text, text, 1..3).prop_map(|pairs| {
            Context::Opaque(Context::Map(pairs.into_iter().collect()).encode())
        }),
    ]
}

fn build(context: &Context) -> EncryptionContext {
    match context {
        Context::None => EncryptionContext::none(),
        Context::Map(pairs) => from(pairs).unwrap(),
        Context::Opaque(bytes) => EncryptionContext::opaque(bytes.clone()).unwrap(),
    }
}

/// What counts as the same context: empty is absent.
fn canonical(context: Context) -> Context {
    match context {
        Context::Map(pairs) if pairs.is_empty() => Context::None,
        Context::Opaque(bytes) if bytes.is_empty() => Context::None,
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn contexts_that_differ_encode_differently(
        left in any_context(),
        right in any_context(),
    ) {
        let (built_left, built_right) = (build(&left), build(&right));
        let same = canonical(left) == canonical(right);
        prop_assert_eq!(built_left.encode() == built_right.encode(), same);
        prop_assert_eq!(built_left == built_right, same);
    }

    /// Injective without luck: an independent decoder gets the context back from the encoding.
    #[test]
    fn encoding_decodes_to_its_context(context in any_context()) {
        let built = build(&context);
        let decoded = Context::decode(&built.encode());
        prop_assert_eq!(decoded, Some(canonical(context)));
        prop_assert_eq!(built.kind(), built.encode()[0]);
    }

    #[test]
    fn order_of_pairs_is_ignored(
        pairs in prop::collection::btree_map(".{0,6}", ".{0,6}", 0..8)
            .prop_map(|pairs| pairs.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
    ) {
        let (sorted, shuffled) = pairs;
        let context = from(&shuffled).unwrap();
        prop_assert_eq!(context.encode(), from(&sorted).unwrap().encode());
        let listed: Vec<_> = context.pairs().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(listed, sorted);
    }

    #[test]
    fn key_repeated_anywhere_is_refused(
        pairs in prop::collection::btree_map("[a-z]{0,3}", "[a-z]{0,3}", 1..8)
            .prop_map(|pairs| pairs.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|mut pairs| {
                pairs.push((pairs[0].0.clone(), "other".to_owned()));
                Just(pairs).prop_shuffle()
            }),
    ) {
        prop_assert_eq!(from(&pairs), Err(ContextError::DuplicateKey));
    }
}

#[test]
fn encoding_is_the_documented_one() {
    assert_eq!(EncryptionContext::none().encode(), [0]);
    let map = from(&[("b".into(), "2".into()), ("a".into(), String::new())]).unwrap();
    assert_eq!(
        map.encode(),
        b"\x01\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01b\0\0\0\x012"
    );
    let opaque = EncryptionContext::opaque(b"xyz".to_vec()).unwrap();
    assert_eq!(opaque.encode(), b"\x02\0\0\0\x03xyz");
    assert_eq!([map.kind(), opaque.kind()], [1, 2]);
}

#[test]
fn context_empty_equals_context_absent() {
    assert_eq!(EncryptionContext::default(), EncryptionContext::none());
    assert_eq!(from(&[]).unwrap(), EncryptionContext::none());
    assert_eq!(
        EncryptionContext::opaque(vec![]).unwrap(),
        EncryptionContext::none()
    );
    assert_eq!(EncryptionContext::none().opaque_bytes(), None);
    assert_eq!(EncryptionContext::none().pairs().len(), 0);
    assert_eq!(
        from(&[pair(0, 0)]).unwrap().kind(),
        1,
        "an empty pair is a pair"
    );
}

#[test]
fn opaque_bytes_are_those_of_opaque_contexts() {
    let opaque = EncryptionContext::opaque(b"xyz".to_vec()).unwrap();
    assert_eq!(opaque.opaque_bytes(), Some(&b"xyz"[..]));
    assert_eq!(opaque.pairs().len(), 0);
    assert_eq!(from(&[pair(1, 1)]).unwrap().opaque_bytes(), None);
}

#[test]
fn key_repeated_with_an_equal_value_is_refused() {
    assert_eq!(
        from(&[pair(1, 1), pair(1, 1)]),
        Err(ContextError::DuplicateKey)
    );
}

#[test]
fn text_is_not_normalised() {
    let composed = from(&[("\u{e9}".into(), "v".into())]).unwrap();
    let decomposed = from(&[("e\u{301}".into(), "v".into())]).unwrap();
    let spaced = from(&[("\u{e9} ".into(), "v".into())]).unwrap();
    assert_ne!(composed, decomposed);
    assert_ne!(composed, spaced);
}

#[test]
fn keys_and_values_beyond_8192_characters_are_refused() {
    for fit in [vec![pair(8192, 0)], vec![pair(1, 8191)], numbered(65)] {
        assert!(from(&fit).is_ok());
    }
    let over = [pair(1, 4096), pair(2, 4093), pair(0, 1)];
    assert_eq!(from(&over), Err(ContextError::TooLong { chars: 8193 }));
    // Characters, not bytes.
    assert!(from(&[("é".repeat(8191), "é".into())]).is_ok());
    assert_eq!(
        from(&[("é".repeat(8192), "é".into())]),
        Err(ContextError::TooLong { chars: 8193 })
    );
}

#[test]
fn opaque_bytes_beyond_a_million_are_refused() {
    assert!(EncryptionContext::opaque(vec![1; 1_000_000]).is_ok());
    assert_eq!(
        EncryptionContext::opaque(vec![1; 1_000_001]),
        Err(ContextError::OpaqueTooLong { bytes: 1_000_001 })
    );
}

#[test]
fn debug_output_and_errors_hold_no_key_or_value() {
    let secret = from(&[("hidden-key".into(), "hidden-value".into())]).unwrap();
    let shown = format!("{secret:?}");
    assert_eq!(
        shown,
        "EncryptionContext { kind: 1, pairs: 1, encoded_bytes: 35 }"
    );
    let opaque = EncryptionContext::opaque(b"hidden".to_vec()).unwrap();
    assert!(!format!("{opaque:?}").contains("hidden"));

    let long = from(&[("hidden".into(), "hidden".repeat(2000))]).unwrap_err();
    assert_eq!(
        long.to_string(),
        "encryption context has 12006 characters, more than 8192"
    );
}

proptest! {
    #[test]
    fn encoding_decodes_to_its_context_alone(context in any_context(), other in prop::collection::vec(0_u8..3, 0..24)) {
        let context = build(&context);
        let decoded = EncryptionContext::decode(&context.encode()).ok();
        let opaque = context.opaque_bytes().is_some();
        prop_assert_eq!(decoded, (!opaque).then_some(context));
        // Whatever decodes is the one encoding of its context.
        if let Ok(decoded) = EncryptionContext::decode(&other) {
            prop_assert_eq!(decoded.encode(), other);
        }
    }
}

#[test]
fn encoding_of_another_form_is_refused() {
    let good = from(&[pair(1, 2), pair(2, 0)]).unwrap().encode();
    assert!(EncryptionContext::decode(&good).is_ok());
    for length in 0..good.len() {
        assert!(EncryptionContext::decode(&good[..length]).is_err());
    }
    let refused = |encoded: &[u8]| EncryptionContext::decode(encoded).err();
    let form = Some(ContextError::Encoding);
    assert_eq!(refused(&[good.as_slice(), &[0]].concat()), form);
    assert_eq!(refused(&[0, 0]), form, "no context, and a byte more");
    assert_eq!(refused(&[1, 0, 0, 0, 0]), form, "an empty map is none");
    assert_eq!(refused(&[1, 255, 255, 255, 255]), form);
    let reversed = b"\x01\0\0\0\x02\0\0\0\x01b\0\0\0\0\0\0\0\x01a\0\0\0\0";
    assert_eq!(refused(reversed), form);
    let twice = b"\x01\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01a\0\0\0\0";
    assert_eq!(refused(twice), Some(ContextError::DuplicateKey));
    assert_eq!(refused(b"\x01\0\0\0\x01\0\0\0\x01\xff\0\0\0\0"), form);
}
