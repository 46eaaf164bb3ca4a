//! The binding as Vault's key derivation context.

use keyway_domain::keyring::Binding;

const LABEL: &[u8] = b"keyway transit context 1";

/// ```text
/// context = field(label) || field(id) || be32(version) || field(origin)
/// field(x) = be32(len(x)) || x
/// ```
/// Every field has its length, so that two bindings never have the same encoding. The encoding never changes: a key
/// unwraps only under the context that it was wrapped under.
pub(crate) fn context(binding: &Binding<'_>) -> Vec<u8> {
    let mut context = Vec::new();
    field(&mut context, LABEL);
    field(&mut context, binding.id.as_bytes());
    context.extend_from_slice(&binding.version.to_be_bytes());
    field(&mut context, binding.origin.as_bytes());
    context
}

fn field(context: &mut Vec<u8>, bytes: &[u8]) {
    // Ids and origins are far below 4 GiB.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    context.extend_from_slice(&length.to_be_bytes());
    context.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, version: u32, origin: &str) -> Vec<u8> {
        context(&Binding {
            id,
            version,
            origin,
        })
    }

    #[test]
    fn encoding_is_the_published_one() {
        let mut expected = b"\0\0\0\x18keyway transit context 1".to_vec();
        expected.extend_from_slice(b"\0\0\0\x05key-1");
        expected.extend_from_slice(b"\0\0\x01\x02");
        expected.extend_from_slice(b"\0\0\0\x06KEYWAY");
        assert_eq!(of("key-1", 0x102, "KEYWAY"), expected);
    }

    #[test]
    fn bindings_that_differ_encode_differently() {
        let all = [
            of("a", 1, "bc"),
            of("ab", 1, "c"),
            of("a", 2, "bc"),
            of("", 1, "abc"),
            of("abc", 1, ""),
            of("a\0\0\0\x01", 1, "bc"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[..n].contains(one), "{n}");
        }
    }
}
