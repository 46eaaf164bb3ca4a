//! Files that somebody cut, extended, reordered or put together.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests stop at what must not happen, as the tests do"
)]

use std::io::{self, Read, Write};

use keyway_crypto::{EncryptionContext, Key256, StreamKeys};
use keyway_files::{CHUNK_BYTES, EncryptedFile, FileError, Header, HeaderError, encrypt};
use proptest::prelude::*;

const SEALED_BYTES: usize = CHUNK_BYTES + 16;

fn data_key(byte: u8) -> Key256 {
    Key256::from([byte; 32])
}

fn header(salt: u8) -> Header {
    let pair = ("bucket".to_owned(), "backups".to_owned());
    let context = EncryptionContext::from_pairs([pair]).unwrap();
    Header::new("my-key", b"wrapped", &context, [salt; 32]).unwrap()
}

/// Bytes that differ in each chunk.
fn plaintext(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at / CHUNK_BYTES) as u8)
        .collect()
}

/// The file of these bytes under the data key 7.
fn file(header: &Header, mut plaintext: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    encrypt(header, &data_key(7), &mut plaintext, &mut file, &mut |_| ()).unwrap();
    file
}

/// What decryption under the data key 7 wrote, and its error.
fn decrypt(file: &[u8]) -> (Vec<u8>, Option<FileError>) {
    decrypt_under(7, file)
}

fn decrypt_under(key: u8, file: &[u8]) -> (Vec<u8>, Option<FileError>) {
    let mut written = Vec::new();
    let Ok(opened) = EncryptedFile::open(file) else {
        return (written, Some(FileError::Header));
    };
    let ended = opened.decrypt(&data_key(key), &mut written, &mut |_| ());
    (written, ended.err())
}

/// It fails, and what it wrote before is the beginning of the plaintext, in whole chunks.
fn refuses(file: &[u8], plaintext: &[u8], why: &str) {
    let (written, error) = decrypt(file);
    assert!(error.is_some(), "{why}");
    assert_eq!(written.len() % CHUNK_BYTES, 0, "{why}");
    assert!(plaintext.starts_with(&written), "{why}");
}

/// The file's parts: header with commitment, and each chunk.
fn parts(file: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (head, chunks) = file.split_at(header(1).encoded().len() + 32);
    (head, chunks.chunks(SEALED_BYTES).collect())
}

fn joined(head: &[u8], chunks: &[&[u8]]) -> Vec<u8> {
    [head, &chunks.concat()].concat()
}

const LENGTHS: [usize; 8] = [
    0,
    1,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    3 * CHUNK_BYTES - 1,
    3 * CHUNK_BYTES,
    3 * CHUNK_BYTES + 9,
];

#[test]
fn file_of_any_length_decrypts() {
    for length in LENGTHS {
        let plaintext = plaintext(length);
        let file = file(&header(1), &plaintext);
        let (head, chunks) = parts(&file);
        assert_eq!(chunks.len(), length.div_ceil(CHUNK_BYTES).max(1));
        assert_eq!(file.len(), head.len() + length + 16 * chunks.len());
        let (written, error) = decrypt(&file);
        assert!(error.is_none(), "{length}: {error:?}");
        assert_eq!(written, plaintext);
    }
}

#[test]
fn file_cut_at_or_near_any_boundary_is_refused() {
    for length in LENGTHS {
        let plaintext = plaintext(length);
        let file = file(&header(1), &plaintext);
        let (head, chunks) = parts(&file);
        let boundaries = (0..chunks.len()).map(|number| head.len() + number * SEALED_BYTES);
        for boundary in boundaries.chain([file.len()]) {
            let near = [-17_isize, -16, -1, 0, 1, 15, 16, 17];
            for cut in near.map(|offset| boundary.saturating_add_signed(offset)) {
                if cut < file.len() {
                    let why = format!("{length} bytes, cut to {cut}");
                    refuses(&file[..cut], &plaintext, &why);
                }
            }
        }
        for cut in 0..head.len() {
            refuses(&file[..cut], b"", "cut within the header");
        }
    }
}

#[test]
fn file_extended_is_refused() {
    for length in LENGTHS {
        let plaintext = plaintext(length);
        let good = file(&header(1), &plaintext);
        let (_, chunks) = parts(&good);
        let last = chunks[chunks.len() - 1];
        let full = plaintext_of_chunk(&good);
        for more in [&[0][..], &[0; 16], &[0; SEALED_BYTES], last, &full] {
            let why = format!("{length} bytes and {} more", more.len());
            refuses(&[&good, more].concat(), &plaintext, &why);
        }
        refuses(&[&good[..], &good].concat(), &plaintext, "the file twice");
    }
}

/// The first chunk of the file, made long enough to be a chunk that is not the last.
fn plaintext_of_chunk(file: &[u8]) -> Vec<u8> {
    let (_, chunks) = parts(file);
    let mut chunk = chunks[0].to_vec();
    chunk.resize(SEALED_BYTES, 0);
    chunk
}

#[test]
fn file_with_chunks_reordered_removed_or_repeated_is_refused() {
    for length in [4 * CHUNK_BYTES, 3 * CHUNK_BYTES + 9] {
        let plaintext = plaintext(length);
        let good = file(&header(1), &plaintext);
        let (head, chunks) = parts(&good);
        assert_eq!(joined(head, &chunks), good);
        for one in 0..chunks.len() {
            let mut removed = chunks.clone();
            removed.remove(one);
            let why = format!("chunk {one} removed");
            refuses(&joined(head, &removed), &plaintext, &why);
            for other in 0..=chunks.len() {
                let mut repeated = chunks.clone();
                repeated.insert(other, chunks[one]);
                let why = format!("chunk {one} again at {other}");
                refuses(&joined(head, &repeated), &plaintext, &why);
                if other < chunks.len() && other != one {
                    let mut swapped = chunks.clone();
                    swapped.swap(one, other);
                    let why = format!("chunks {one} and {other} swapped");
                    refuses(&joined(head, &swapped), &plaintext, &why);
                    let mut replaced = chunks.clone();
                    replaced[one] = chunks[other];
                    let why = format!("chunk {other} in place of {one}");
                    refuses(&joined(head, &replaced), &plaintext, &why);
                }
            }
        }
    }
}

#[test]
fn file_spliced_of_two_under_one_data_key_is_refused() {
    let plaintext = plaintext(3 * CHUNK_BYTES + 9);
    let (one, other) = (file(&header(1), &plaintext), file(&header(2), &plaintext));
    let ((head, chunks), (other_head, others)) = (parts(&one), parts(&other));
    for number in 0..chunks.len() {
        let mut spliced = chunks.clone();
        spliced[number] = others[number];
        refuses(
            &joined(head, &spliced),
            &plaintext,
            &format!("chunk {number}"),
        );
        let spliced = [&chunks[..number], &others[number..]].concat();
        refuses(
            &joined(head, &spliced),
            &plaintext,
            &format!("from {number}"),
        );
    }
    refuses(&joined(other_head, &chunks), b"", "the other header");
    let commitment = head.len() - 32;
    let exchanged = [&head[..commitment], &other_head[commitment..]].concat();
    refuses(&joined(&exchanged, &chunks), b"", "the other commitment");
}

#[test]
fn file_with_an_empty_last_chunk_after_others_is_refused() {
    let (header, plaintext) = (header(1), plaintext(CHUNK_BYTES));
    let mut salt = [0; 32];
    salt.fill(1);
    let keys = StreamKeys::derive(&data_key(7), &salt, header.encoded()).unwrap();
    let commitment = keys.commitment();
    let mut sealer = keys.sealer();
    let (mut first, mut last) = (plaintext.clone(), Vec::new());
    sealer.seal_next(&mut first).unwrap();
    sealer.seal_last(&mut last).unwrap();
    let file = [header.encoded(), &commitment, &first, &last].concat();
    let (written, error) = decrypt(&file);
    assert!(
        matches!(error, Some(FileError::End { number: 1 })),
        "{error:?}"
    );
    assert_eq!(written, plaintext);
}

#[test]
fn file_under_another_data_key_is_refused_before_a_chunk_is_read() {
    let file = file(&header(1), &plaintext(10));
    let (written, error) = decrypt_under(8, &file);
    assert!(matches!(error, Some(FileError::Header)), "{error:?}");
    assert!(written.is_empty());
}

#[test]
fn header_with_any_bit_flipped_is_refused() {
    let file = file(&header(1), &plaintext(10));
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            refuses(&changed, b"", &format!("bit {bit} of byte {at}"));
        }
    }
}

#[test]
fn header_with_a_length_beyond_its_limit_or_the_input_is_refused() {
    let whole = file(&header(1), b"");
    let context = header(1).context().encode().len();
    let context_length = header(1).encoded().len() - context - 4;
    let wrapped_key_length = 41 + "my-key".len();
    for (at, bytes) in [(wrapped_key_length, 2), (context_length, 4)] {
        let mut changed = whole.clone();
        changed[at..at + bytes].fill(0xff);
        let refused = EncryptedFile::open(changed.as_slice()).err();
        let expected = match bytes {
            2 => matches!(refused, Some(HeaderError::Short)),
            _ => matches!(refused, Some(HeaderError::Field("context"))),
        };
        assert!(expected, "{refused:?}");
    }
}

/// Gives one byte at a time, and is interrupted before each.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn input_that_comes_byte_by_byte_gives_the_same_file() {
    let plaintext = plaintext(CHUNK_BYTES + 1);
    let mut slow = Vec::new();
    let mut input = Slow(&plaintext, false);
    encrypt(&header(1), &data_key(7), &mut input, &mut slow, &mut |_| ()).unwrap();
    assert_eq!(slow, file(&header(1), &plaintext));
    let opened = EncryptedFile::open(Slow(&slow, false)).unwrap();
    let mut written = Vec::new();
    opened
        .decrypt(&data_key(7), &mut written, &mut |_| ())
        .unwrap();
    assert_eq!(written, plaintext);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn error_of_the_input_or_output_is_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let key = data_key(7);
    let read = encrypt(&header(1), &key, &mut Broken, &mut Vec::new(), &mut |_| ());
    assert!(matches!(read, Err(FileError::Read(_))), "{read:?}");
    let written = encrypt(&header(1), &key, &mut &b"x"[..], &mut Full, &mut |_| ());
    assert!(matches!(written, Err(FileError::Write(_))), "{written:?}");
    let file = file(&header(1), b"x");
    let opened = EncryptedFile::open(file.as_slice()).unwrap();
    let written = opened.decrypt(&key, &mut Full, &mut |_| ());
    assert!(matches!(written, Err(FileError::Write(_))), "{written:?}");
}

#[test]
fn progress_ends_with_all_bytes() {
    let plaintext = plaintext(2 * CHUNK_BYTES + 5);
    let mut seen = Vec::new();
    let mut file = Vec::new();
    let mut input = plaintext.as_slice();
    encrypt(
        &header(1),
        &data_key(7),
        &mut input,
        &mut file,
        &mut |done| seen.push(done),
    )
    .unwrap();
    let chunk = CHUNK_BYTES as u64;
    assert_eq!(seen, [chunk, 2 * chunk, 2 * chunk + 5]);
    let (mut seen, mut written) = (Vec::new(), Vec::new());
    let opened = EncryptedFile::open(file.as_slice()).unwrap();
    opened
        .decrypt(&data_key(7), &mut written, &mut |done| seen.push(done))
        .unwrap();
    let sealed = SEALED_BYTES as u64;
    assert_eq!(seen, [sealed, 2 * sealed, 2 * sealed + 21]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn header_of_any_fields_reads_back(
        key_id in "[^\\p{Cc}]{1,60}",
        wrapped_key in prop::collection::vec(any::<u8>(), 1..300),
        pairs in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
        salt in any::<[u8; 32]>(),
    ) {
        let context = EncryptionContext::from_pairs(pairs).unwrap();
        let header = Header::new(&key_id, &wrapped_key, &context, salt).unwrap();
        let bytes = [header.encoded(), &[9; 32], b"rest"].concat();
        let mut input = bytes.as_slice();
        let (read, commitment) = Header::read(&mut input).unwrap();
        prop_assert_eq!(&read, &header);
        prop_assert_eq!(read.key_id(), &key_id);
        prop_assert_eq!(read.wrapped_key(), &wrapped_key);
        prop_assert_eq!(read.context(), &context);
        prop_assert_eq!(commitment, [9; 32]);
        prop_assert_eq!(input, b"rest");
    }
}

#[test]
fn header_outside_its_limits_is_refused() {
    let none = EncryptionContext::none();
    let made = |key_id: &str, wrapped: usize| {
        Header::new(key_id, &vec![1; wrapped], &none, [1; 32]).is_ok()
    };
    assert!(made(&"k".repeat(255), 65_535));
    assert!(!made(&"k".repeat(256), 1));
    assert!(!made("", 1));
    assert!(!made("a\nb", 1));
    assert!(!made("k", 0));
    assert!(!made("k", 65_536));
    let opaque = EncryptionContext::opaque(vec![1]).unwrap();
    assert!(Header::new("k", b"w", &opaque, [1; 32]).is_err());
}
