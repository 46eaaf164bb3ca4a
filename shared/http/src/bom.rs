const BOM: &[u8] = b"\xef\xbb\xbf";

/// Removes the UTF-8 byte order mark, which some editors and shells write and JSON does not allow.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}
