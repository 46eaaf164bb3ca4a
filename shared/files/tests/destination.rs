//! Outputs are complete under their name, or absent.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at what must not happen, as the tests do"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use keyway_files::{DestinationError, NewFile, is_same_file};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn output_has_its_name_only_after_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let new = NewFile::create(&path, false).unwrap();
    new.writer().unwrap().write_all(b"content").unwrap();
    let before = names(folder.path());
    assert_eq!(before.len(), 1);
    assert!(before[0].starts_with(".keyway-") && before[0].ends_with(".tmp"));
    new.finish().unwrap();
    assert_eq!(names(folder.path()), ["out"]);
    assert_eq!(fs::read(&path).unwrap(), b"content");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn output_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let new = NewFile::create(&folder.path().join("out"), false).unwrap();
    new.writer().unwrap().write_all(b"content").unwrap();
    drop(new);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn output_that_exists_is_kept_unless_it_is_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    // Somebody makes the file while ours is written.
    let new = NewFile::create(&path, false).unwrap();
    fs::write(&path, b"theirs").unwrap();
    assert!(matches!(new.finish(), Err(DestinationError::Exists)));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(names(folder.path()), ["out"]);
    let refused = NewFile::create(&path, false).err();
    assert!(matches!(refused, Some(DestinationError::Exists)));

    let new = NewFile::create(&path, true).unwrap();
    new.writer().unwrap().write_all(b"ours").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    new.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"ours");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn output_that_is_no_plain_file_is_refused_also_to_replace() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink("nowhere", &link).unwrap();
    for path in [
        &link,
        folder.path(),
        Path::new("/dev/null"),
        Path::new("/"),
        &folder.path().join(".."),
    ] {
        for replace in [false, true] {
            let refused = NewFile::create(path, replace).err();
            assert!(
                matches!(refused, Some(DestinationError::NotPlain)),
                "{}: {refused:?}",
                path.display()
            );
        }
    }
    let refused = NewFile::create(&folder.path().join("absent/out"), false).err();
    assert!(matches!(refused, Some(DestinationError::Io(_))));
    assert_eq!(names(folder.path()), ["link"]);
}

#[test]
fn file_under_two_names_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    fs::write(&one, b"").unwrap();
    fs::hard_link(&one, &other).unwrap();
    let of = |path: &Path| fs::metadata(path).unwrap();
    assert!(is_same_file(&of(&one), &of(&other)));
    fs::write(folder.path().join("third"), b"").unwrap();
    assert!(!is_same_file(&of(&one), &of(&folder.path().join("third"))));
}
