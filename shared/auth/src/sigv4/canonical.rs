use std::borrow::Cow;
use std::ops::Range;

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::SignatureError;

const MAX_PATH: usize = 8 * 1024;
const MAX_QUERY: usize = 16 * 1024;

/// The paths that a client may have signed for the received path, the likeliest first.
///
/// S3 signs the path encoded once; every other service encodes the encoded path again and removes dot
/// segments and doubled slashes first. Not every client does what its service does:
///
/// - aws-sigv4 and botocore sign an S3 path byte for byte, so `:` stays `:` where S3 itself says `%3A`;
/// - curl 7.88, which Debian 12 has, signs every service's path byte for byte;
/// - awscurl encodes again for every service and removes nothing.
///
/// Trying these is safe: each form determines the received segments. The byte-for-byte form and the
/// second encoding without removal are one-to-one images of the path, stricter than the first form.
/// The byte-for-byte form and the double encoding could be confused only if a client signs a path with
/// an encoded percent sign, `%25`, and no name that Keyway serves contains a percent sign.
///
/// Not tried, because one signature would then stand for two paths: `%2F` signed as `/` and `+` as a
/// space (aws4fetch, aws4 and requests-aws4auth, for S3).
///
/// Nearly every path is plain: all its forms are equal.
pub(super) fn paths(raw: &str, is_s3: bool) -> Result<Vec<Cow<'_, str>>, SignatureError> {
    if raw.len() > MAX_PATH {
        return Err(SignatureError::TargetTooLong {
            what: "path",
            limit: MAX_PATH,
        });
    }
    if !raw.starts_with('/') {
        return Err(SignatureError::Path);
    }
    if is_plain(raw) {
        return Ok(vec![raw.into()]);
    }
    check_characters(raw, "path")?;
    let candidates = if is_s3 {
        vec![encoded_once(raw).into(), raw.into()]
    } else {
        vec![
            encoded_again(&without_dots(raw)).into(),
            encoded_again(raw).into(),
            raw.into(),
        ]
    };
    let mut distinct = Vec::with_capacity(candidates.len());
    for path in candidates {
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    Ok(distinct)
}

/// Whether every form of the path is the path itself: no byte to encode, no empty segment, none that begins with a dot.
fn is_plain(raw: &str) -> bool {
    let mut before = 0;
    raw.bytes().all(|byte| {
        let begins_segment = std::mem::replace(&mut before, byte) == b'/';
        match byte {
            b'/' | b'.' => !begins_segment,
            byte => is_unreserved(byte),
        }
    })
}

/// Decodes and encodes the path again, so that `%7e` and `~` are equal, and a slash and `%2F` are not.
fn encoded_once(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + path.len() / 4);
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            out.push('/');
        }
        percent_decode_str(segment).for_each(|byte| push_encoded(&mut out, byte));
    }
    out
}

fn encoded_again(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + path.len() / 4);
    path.bytes().for_each(|byte| {
        if byte == b'/' {
            out.push('/')
        } else {
            push_encoded(&mut out, byte)
        }
    });
    out
}

/// Removes dot segments by RFC 3986, 5.2.4, and merges doubled slashes, as AWS's signers do.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = true;
    for segment in path.split('/') {
        match segment {
            "" | "." => ends_in_folder = true,
            ".." => {
                kept.pop();
                ends_in_folder = true;
            }
            name => {
                kept.push(name);
                ends_in_folder = false;
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_folder {
        out.push('/');
    }
    out
}

/// The query, decoded once and encoded again in the canonical way, not yet sorted.
///
/// A bare `+` is a space, as in forms: S3, the SDKs, aws4fetch and the code that decodes the query
/// later read it so. A literal plus must be sent as `%2B`.
pub(super) struct Query(String);

impl Query {
    pub(super) fn parse(raw: &str) -> Result<Self, SignatureError> {
        if raw.len() > MAX_QUERY {
            return Err(SignatureError::TargetTooLong {
                what: "query",
                limit: MAX_QUERY,
            });
        }
        if raw.is_empty() {
            return Ok(Self(String::new()));
        }
        check_characters(raw, "query")?;
        let mut out = String::with_capacity(raw.len() + raw.len() / 4);
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if !out.is_empty() {
                out.push('&');
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            recode(&mut out, name);
            out.push('=');
            recode(&mut out, value);
        }
        Ok(Self(out))
    }

    /// Every name and value, encoded, in the order of the request.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split('&').filter_map(|pair| pair.split_once('='))
    }

    /// The signed form: sorted by name, then value, without the signature itself.
    pub(super) fn signed(&self) -> String {
        let mut pairs: Vec<_> = self
            .pairs()
            .filter(|(name, _)| *name != "X-Amz-Signature")
            .collect();
        pairs.sort_unstable();
        let mut out = String::with_capacity(self.0.len());
        for (name, value) in pairs {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            out.push_str(value);
        }
        out
    }
}

/// The queries that a client may have signed in the Authorization header for the received query, the likeliest first.
///
/// S3 and the SDKs decode the query, encode it in one way and sort it ([`Query::signed`]). Not every client does:
///
/// - botocore sorts the raw pairs: `*:/@()` stay as they are, and the empty pairs of `?limit=5&` are kept and
///   signed as `=`;
/// - curl 7.88 signs the query byte for byte: unsorted, and `?encryption` without the `=` that belongs there.
///
/// Trying these is safe: each form determines the received pairs, and one signed text never stands for two sets of pairs.
/// A pair contains no `&` and its name no `=`, so the text of botocore's form splits into exactly the received pairs,
/// undecoded. Only their order and the `=` of an empty value are lost, and nothing reads either: a repeated name is
/// refused where it matters. No route has empty pieces or empty names as parameters. A text that is signed in one form and
/// read in another names the same pairs, because the first form's text is its own image in the other two: it contains no
/// bare `+`, and every percent sign in it begins an encoded byte.
pub(super) fn queries(query: &Query, raw: &str) -> Vec<String> {
    if raw.is_empty() {
        return vec![String::new()];
    }
    let mut distinct = vec![query.signed()];
    for candidate in [sorted_as_it_stands(raw), raw.to_owned()] {
        if !distinct.contains(&candidate) {
            distinct.push(candidate);
        }
    }
    distinct
}

/// botocore's form: the raw pairs, each with an `=`, sorted by name and then by value.
fn sorted_as_it_stands(raw: &str) -> String {
    if raw.is_empty() {
        return String::new();
    }
    let mut pairs: Vec<_> = raw
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(raw.len() + pairs.len());
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        if at > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    out
}

/// The same host with or without its default port: clients sign `h` and send `h:443`, or the reverse, and proxies add or
/// remove the port. With the same scheme both are one authority, so no signature stands for two.
pub(super) fn other_host(host: &str, over_tls: bool) -> Option<String> {
    let port = if over_tls { ":443" } else { ":80" };
    // Colons inside the brackets of an IPv6 address do not begin a port.
    let has_port = |host: &str| host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    match host.strip_suffix(port) {
        Some("") => None,
        Some(name) if !has_port(name) => Some(name.to_owned()),
        Some(_) => None,
        None if host.is_empty() || has_port(host) => None,
        None => Some(format!("{host}{port}")),
    }
}

fn recode(out: &mut String, component: &str) {
    // Replace the plus before decoding: a `%2B` decodes to a literal plus.
    for (at, part) in component.split('+').enumerate() {
        if at > 0 {
            out.push_str("%20");
        }
        percent_decode_str(part).for_each(|byte| push_encoded(out, byte));
    }
}

/// The signed headers, each as `name:value\n`.
pub(super) struct SignedHeaders {
    lines: Vec<u8>,
    /// Where the Host header's value is in the lines.
    host: Range<usize>,
    /// The length of all values as received, each with one byte that separates it from the next.
    received_bytes: usize,
}

impl SignedHeaders {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            lines: Vec::with_capacity(bytes),
            host: 0..0,
            received_bytes: 0,
        }
    }

    /// Adds the line of the header with this name, which is in lower case. Returns whether the request has that header.
    pub(super) fn add(&mut self, headers: &HeaderMap, name: &[u8]) -> bool {
        self.lines.extend_from_slice(name);
        let begin = self.lines.len() + 1;
        let mut values = 0;
        // A request has few headers: comparing all of their names is faster than hashing this one.
        for (known, value) in headers {
            if known.as_str().as_bytes() == name {
                self.lines.push(if values == 0 { b':' } else { b',' });
                push_value(&mut self.lines, value);
                self.received_bytes += value.len() + 1;
                values += 1;
            }
        }
        if name == HOST.as_str().as_bytes() {
            self.host = begin..self.lines.len();
        }
        self.lines.push(b'\n');
        values > 0
    }

    pub(super) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Appends the lines. `host`, if given, replaces the Host header's value.
    pub(super) fn push_to(&self, out: &mut Vec<u8>, host: Option<&str>) {
        let parts = (
            host,
            self.lines.get(..self.host.start),
            self.lines.get(self.host.end..),
        );
        match parts {
            (Some(host), Some(before), Some(after)) => {
                out.extend_from_slice(before);
                out.extend_from_slice(host.as_bytes());
                out.extend_from_slice(after);
            }
            _ => out.extend_from_slice(&self.lines),
        }
    }
}

/// Appends the value without the spaces around it, and with runs of spaces as one.
fn push_value(out: &mut Vec<u8>, value: &HeaderValue) {
    if !value.as_bytes().contains(&b' ') {
        return out.extend_from_slice(value.as_bytes());
    }
    for (at, word) in value
        .as_bytes()
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .enumerate()
    {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

fn push_encoded(out: &mut String, byte: u8) {
    if is_unreserved(byte) {
        out.push(char::from(byte));
    } else {
        out.push('%');
        out.push(char::from(hex_digit(byte >> 4).to_ascii_uppercase()));
        out.push(char::from(hex_digit(byte & 15).to_ascii_uppercase()));
    }
}

fn is_unreserved(byte: u8) -> bool {
    UNRESERVED.get(usize::from(byte)).is_some_and(|is| *is)
}

/// A table, because every byte of a path is looked up.
static UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while let [byte, after @ ..] = rest {
        let (_, from) = table.split_at_mut(*byte as usize);
        if let [is, ..] = from {
            *is = true;
        }
        rest = after;
    }
    table
};

/// Every percent sign must begin an encoded byte: a repair would be a guess, and every client guesses
/// differently. No HTTP parser accepts control characters; a newline in a path that is signed byte for
/// byte would look like one of the canonical request.
fn check_characters(text: &str, what: &'static str) -> Result<(), SignatureError> {
    let is_encoded = |rest: &str| match rest.as_bytes() {
        [a, b, ..] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        _ => false,
    };
    if !text.split('%').skip(1).all(is_encoded) {
        return Err(SignatureError::PercentEncoding(what));
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(SignatureError::ControlCharacter(what));
    }
    Ok(())
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

/// Appends `bytes` in lower-case hex.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    out.resize(begin + 2 * bytes.len(), 0);
    let digits = out.get_mut(begin..).unwrap_or_default();
    for ([high, low], byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        (*high, *low) = (hex_digit(byte >> 4), hex_digit(byte & 15));
    }
}

/// Exactly 32 bytes of hex, in either case.
pub(super) fn read_hex(text: &str) -> Option<[u8; 32]> {
    read_digits(text, &ANY_CASE)
}

/// Exactly 32 bytes of hex, in lower case.
pub(super) fn read_lower_hex(text: &str) -> Option<[u8; 32]> {
    read_digits(text, &LOWER_CASE)
}

fn read_digits(text: &str, values: &[u8; 256]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let value = |digit: u8| values.get(usize::from(digit)).map_or(NO_DIGIT, |it| *it);
    let (mut out, mut all) = ([0; 32], 0);
    for (to, [high, low]) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
        let (high, low) = (value(*high), value(*low));
        all |= high | low;
        *to = high << 4 | low;
    }
    (all & NO_DIGIT == 0).then_some(out)
}

/// In the tables of values: a byte that is no digit. No digit's value has this bit.
const NO_DIGIT: u8 = 0x80;
static LOWER_CASE: [u8; 256] = digit_values(b"0123456789abcdef", [NO_DIGIT; 256]);
static ANY_CASE: [u8; 256] = digit_values(b"0123456789ABCDEF", LOWER_CASE);

const fn digit_values(digits: &[u8; 16], mut table: [u8; 256]) -> [u8; 256] {
    let (mut rest, mut value): (&[u8], u8) = (digits, 0);
    while let [digit, after @ ..] = rest {
        let (_, from) = table.split_at_mut(*digit as usize);
        if let [to, ..] = from {
            *to = value;
        }
        (rest, value) = (after, value + 1);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreserved_bytes_are_those_of_rfc_3986() {
        for byte in 0..=u8::MAX {
            let expected =
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            assert_eq!(is_unreserved(byte), expected, "{byte:#x}");
        }
    }

    #[test]
    fn hex_is_read_in_the_accepted_case_and_length_only() {
        let lower = "0123456789abcdef".repeat(4);
        let bytes: [u8; 32] = hex::decode(&lower).unwrap().try_into().unwrap();
        let upper = lower.to_uppercase();
        assert_eq!(read_lower_hex(&lower), Some(bytes));
        assert_eq!(read_hex(&lower), Some(bytes));
        assert_eq!(read_hex(&upper), Some(bytes));
        assert_eq!(read_lower_hex(&upper), None);
        for length in [0, 62, 63, 65, 66] {
            let text = "0".repeat(length);
            assert_eq!((read_hex(&text), read_lower_hex(&text)), (None, None));
        }
        for byte in 0..128_u8 {
            let digit = char::from(byte);
            for at in [0, 31, 63] {
                let mut text = lower.clone();
                text.replace_range(at..=at, &digit.to_string());
                let is_lower = digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase();
                assert_eq!(read_hex(&text).is_some(), digit.is_ascii_hexdigit());
                assert_eq!(read_lower_hex(&text).is_some(), is_lower, "{digit:?}");
            }
        }
    }
}
