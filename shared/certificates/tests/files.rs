//! Certificates and keys in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use keyway_auth::certificate::Identity;
use keyway_certificates::{CertifiedKey, ClientKey};

#[test]
fn client_certificate_proves_the_identity_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    for (number, kind) in [ClientKey::Ecdsa, ClientKey::Rsa2048]
        .into_iter()
        .enumerate()
    {
        let made = CertifiedKey::of_client(kind).unwrap();
        let certificate = folder.path().join(format!("{number}.crt"));
        let key = folder.path().join(format!("{number}.key"));
        made.write(&certificate, &key).unwrap();
        let written = Identity::of_pem(&fs::read_to_string(&certificate).unwrap()).unwrap();
        let shown = Identity::of_chain([made.certificate_der()]).unwrap();
        assert_eq!(written, shown);
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!made.key_der().is_empty());
    }
}

#[test]
fn file_that_is_there_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c"), folder.path().join("k"));
    let made = CertifiedKey::for_loopback().unwrap();

    fs::write(&key, "mine").unwrap();
    let error = made.write(&certificate, &key).unwrap_err();
    assert_eq!(error.to_string(), key.display().to_string());
    assert_eq!(fs::read_to_string(&key).unwrap(), "mine");
    assert!(!certificate.exists());

    fs::remove_file(&key).unwrap();
    fs::write(&certificate, "mine").unwrap();
    let error = made.write(&certificate, &key).unwrap_err();
    assert_eq!(error.to_string(), certificate.display().to_string());
    assert_eq!(fs::read_to_string(&certificate).unwrap(), "mine");
    assert!(!key.exists(), "a key without its certificate is not left");
}
