const BOM: &[u8] = b"\xef\xbb\xbf";

/// The text without the byte order mark that some editors and shells put before UTF-8, and JSON does not have.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}
