//! Who clients are by the certificates that they show.

use keyway_runtime_hyper::{Bounds, Clients};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;

use crate::Server;
use crate::certificates::{Authority, Credential, credentials};
use crate::client::{Client, VERSIONS};

#[tokio::test]
async fn every_kind_of_key_gives_an_identity() {
    let server = Server::asking().await;
    for (kind, credential) in credentials() {
        for version in VERSIONS {
            for protocol in ["h2", "http/1.1"] {
                let client = Client::speaking(&[version], &server.authority, Some(&credential));
                let shown = client.alpn(&[protocol]).whoami(server.tls).await;
                let expected = credential.identity();
                assert_eq!(shown.unwrap(), expected, "{kind} {version:?} {protocol}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn api_key_gives_an_identity() {
    let server = Server::asking().await;
    let key = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
    // A new certificate each time, as clients make one; the identity is the key's.
    for _ in 0..2 {
        let credential = Credential::of_api_key(key);
        let client = Client::new(&server.authority, Some(&credential));
        assert_eq!(
            client.whoami(server.tls).await.unwrap(),
            "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn certificate_of_version_1_gives_an_identity() {
    let server = Server::asking().await;
    let credential = Credential {
        chain: vec![CertificateDer::from_pem_slice(include_bytes!("v1.pem")).unwrap()],
        key: PrivateKeyDer::from_pem_slice(include_bytes!("p256.key")).unwrap(),
    };
    let stranger = credential.with_the_key_of(&Credential::authority());
    for version in VERSIONS {
        let client = |shown| Client::speaking(&[version], &server.authority, Some(shown));
        assert_eq!(
            client(&credential).whoami(server.tls).await.unwrap(),
            "54f9cbe5cfa204bd7eb2c9ed4cfaad7aaeb85e43e06f428525fac5a1d35631cb"
        );
        client(&stranger).whoami(server.tls).await.unwrap_err();
    }
    server.stop().await;
}

#[tokio::test]
async fn certificate_without_its_key_fails_the_handshake() {
    let server = Server::asking().await;
    let all = credentials();
    for (kind, theirs) in &all {
        for (other, own) in credentials() {
            let stolen = theirs.with_the_key_of(&own);
            for version in VERSIONS {
                let client = Client::speaking(&[version], &server.authority, Some(&stolen));
                let refused = client.ask(server.tls, "/encrypted").await;
                assert!(
                    refused.is_err(),
                    "{kind} with a key of {other}, {version:?}"
                );
            }
        }
        let client = Client::new(&server.authority, Some(theirs));
        assert_eq!(client.whoami(server.tls).await.unwrap(), theirs.identity());
    }
    server.stop().await;
}

#[tokio::test]
async fn chain_without_exactly_one_client_gives_no_identity() {
    let server = Server::asking().await;
    let all = credentials();
    let (one, two) = (&all[0].1, &all[1].1);
    let authority = Credential::authority();
    for (shown, refusal) in [
        (None, "Missing"),
        (Some(authority.clone()), "Missing"),
        (Some(authority.clone().followed_by(one)), "Missing"),
        (Some(one.clone().followed_by(two)), "Several"),
        (Some(one.clone().followed_by(one)), "Several"),
    ] {
        for version in VERSIONS {
            let client = Client::speaking(&[version], &server.authority, shown.as_ref());
            let answer = client.whoami(server.tls).await.unwrap();
            assert_eq!(answer, format!("By({refusal})"));
        }
    }
    let chain = one.clone().followed_by(&authority);
    let client = Client::new(&server.authority, Some(&chain));
    assert_eq!(client.whoami(server.tls).await.unwrap(), one.identity());

    let mut endless = one.clone();
    for _ in 0..10 {
        endless = endless.followed_by(&authority);
    }
    let client = Client::new(&server.authority, Some(&endless));
    client.whoami(server.tls).await.unwrap_err();

    let mut garbage = one.clone();
    garbage.chain[0] = vec![0x30, 0x03, 0x02, 0x01, 0x00].into();
    let client = Client::new(&server.authority, Some(&garbage));
    client.whoami(server.tls).await.unwrap_err();
    server.stop().await;
}

#[tokio::test]
async fn certificate_is_requested_only_where_configured() {
    let server = Server::start(Clients::Anonymous, Bounds::default()).await;
    let all = credentials();
    let client = Client::new(&server.authority, Some(&all[0].1));
    assert_eq!(client.whoami(server.tls).await.unwrap(), "By(Missing)");
    server.stop().await;
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused() {
    let clients = Authority::new("clients");
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), clients.certificate.pem()).unwrap();
    let server = Server::start(Clients::IssuedBy(file.path().to_owned()), Bounds::default()).await;
    let own = clients.client();
    let other = Authority::new("clients").client();
    let self_signed = &credentials()[0].1;
    for version in VERSIONS {
        let ask = async |shown: Option<&Credential>| {
            let client = Client::speaking(&[version], &server.authority, shown);
            client.whoami(server.tls).await
        };
        assert_eq!(ask(Some(&own)).await.unwrap(), own.identity());
        assert_eq!(ask(None).await.unwrap(), "By(Missing)");
        ask(Some(&other)).await.unwrap_err();
        ask(Some(self_signed)).await.unwrap_err();
        ask(Some(&own.with_the_key_of(&other))).await.unwrap_err();
    }
    server.stop().await;
}
