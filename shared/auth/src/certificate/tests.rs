use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use keyway_http::{ClientCertificate, Peer, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{
    ApiKey, Identity, Network, ProxyCertificateHeader, TrustedProxies, TrustedProxy,
    TrustedProxyError, Unidentified, fingerprint,
};

// Made by OpenSSL, as are the keys' hashes.
const P256: &str = include_str!("tests/p256.pem");
const P256_IDENTITY: &str = "54f9cbe5cfa204bd7eb2c9ed4cfaad7aaeb85e43e06f428525fac5a1d35631cb";
const ED25519: &str = include_str!("tests/ed25519.pem");
const ED25519_IDENTITY: &str = "23ecc13e532dfccc41302888a5a1721319c560db0516ac53c28bd1f9099e016e";
/// `basicConstraints = CA:TRUE`, the default of `openssl req -x509`.
const AUTHORITY: &str = include_str!("tests/ca.pem");

#[test]
fn identity_is_the_hash_of_its_public_key() {
    for (pem, identity) in [
        (P256, P256_IDENTITY),
        (ED25519, ED25519_IDENTITY),
        (
            include_str!("tests/p384.pem"),
            "d15f3d2df659b226bd5ceb7270a5680a96e770fbc4d38dc41fb5285f3d839232",
        ),
        (
            include_str!("tests/rsa2048.pem"),
            "4959b04c76f9d0e87c7a66387121bba2ee8112bb5e47aa4bf51eec0f0a7fc848",
        ),
        // The same key in another certificate, of version 1, is the same identity.
        (include_str!("tests/v1.pem"), P256_IDENTITY),
    ] {
        assert_eq!(Identity::of_pem(pem).unwrap().to_string(), identity);
        assert_eq!(identity.parse().ok(), Identity::of_pem(pem).ok());
    }
    for pem in [
        include_str!("tests/rsa1024.pem"),
        include_str!("tests/p521.pem"),
    ] {
        assert_eq!(Identity::of_pem(pem), Err(Unidentified::Key));
    }
}

#[test]
fn certificate_without_a_proven_key_gives_no_identity() {
    let of = |chain: &[&str]| Identity::of_pem(&chain.concat());
    let alone = of(&[P256]).unwrap();
    assert_eq!(of(&[P256, AUTHORITY]), Ok(alone));
    assert_eq!(of(&[P256, AUTHORITY, AUTHORITY]), Ok(alone));
    for (chain, refusal) in [
        (&[][..], Unidentified::Missing),
        (&[AUTHORITY], Unidentified::Missing),
        (&[AUTHORITY, AUTHORITY], Unidentified::Missing),
        (&[P256, ED25519], Unidentified::Several),
        (&[P256, P256], Unidentified::Several),
        (&[P256, AUTHORITY, ED25519], Unidentified::Several),
        // Otherwise the holder of an authority's key could take the identity of anyone whose certificate is known.
        (&[AUTHORITY, P256], Unidentified::Missing),
        (&[AUTHORITY, P256, ED25519], Unidentified::Missing),
    ] {
        assert_eq!(of(chain), Err(refusal), "{}", chain.len());
    }
    let long = [&[P256][..], &[AUTHORITY; 10]].concat();
    assert_eq!(of(&long), Err(Unidentified::Malformed));
}

#[test]
fn malformed_certificate_gives_no_identity() {
    let der = CertificateDer::from_pem_slice(P256.as_bytes()).unwrap();
    let of = |der: &[u8]| Identity::of_chain([der]);
    let whole = of(&der).unwrap();
    let longer = [&der[..], &[0]].concat();
    assert_eq!(of(&longer), Err(Unidentified::Malformed));
    for length in 0..der.len() {
        assert_eq!(of(&der[..length]), Err(Unidentified::Malformed));
    }
    // A flipped bit is in the key and gives another identity, or changes nothing, or is refused.
    let openssl = P256_IDENTITY.parse();
    let mut same = 0;
    for bit in 0..der.len() * 8 {
        let mut flipped = der.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        same += usize::from(of(&flipped).ok() == openssl.ok());
    }
    assert!(same > 256, "those of the signature change nothing");
    for text in [
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
    ] {
        assert_eq!(Identity::of_pem(text), Err(Unidentified::Malformed));
    }
    for text in [
        "",
        "certificate",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    ] {
        assert_eq!(Identity::of_pem(text), Err(Unidentified::Missing), "{text}");
    }
    assert_eq!(of(&der), Ok(whole));
}

#[test]
fn identities_have_one_spelling() {
    let identity: Identity = P256_IDENTITY.parse().unwrap();
    assert_eq!(identity.to_string(), P256_IDENTITY);
    for text in [
        "",
        "54f9",
        &P256_IDENTITY.to_uppercase(),
        &P256_IDENTITY[1..],
        &format!("{P256_IDENTITY}0"),
        &format!("{P256_IDENTITY}00"),
        &format!("g{}", &P256_IDENTITY[1..]),
    ] {
        assert!(text.parse::<Identity>().is_err(), "{text}");
    }
}

#[test]
fn api_keys_are_identities() {
    for (text, identity) in [
        (
            "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc",
            "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22",
        ),
        (
            "kes:v1:AJhC3EFXHQmAT89Z9KBGrhOWI7ElGAYeFYki1qQAQMm4",
            "c5a25d19c1a39ca326fc2e30774b692ba9da30dea5c0400594dbad35101efcf3",
        ),
        (
            "kes:v1:AGbcAO/FYremB42jKDcWu65N2+iztdrzy8Sgj985hiX8",
            "46ffa16fca0de8cd90d5ff37271cc7952ceab0327cf97a868bab273ead5cc571",
        ),
    ] {
        let key = ApiKey::parse(text).unwrap();
        assert_eq!(key.identity().unwrap().to_string(), identity);
        assert_eq!(*key.expose(), text);
        let bare = ApiKey::parse(&text[7..]).unwrap();
        assert_eq!(*bare.expose(), text);

        // The certificate that a client makes from it has the same identity.
        let pkcs8 = key.expose_pkcs8();
        let pkcs8 = rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let pair = rcgen::KeyPair::try_from(&pkcs8).unwrap();
        let params = rcgen::CertificateParams::default();
        let certificate = params.self_signed(&pair).unwrap();
        let shown = Identity::of_chain([certificate.der().as_ref()]).unwrap();
        assert_eq!(shown.to_string(), identity);
    }
    for text in [
        "",
        "kes:v1:",
        "kes:v2:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc",
        "kes:v1:AT9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc",
        "kes:v1:AD9E7FSYWrMD-VjhI6q545cYT9YOyFxZb7UnjEepYDRc",
        "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYD==",
        "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRcAA==",
        " kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc",
    ] {
        assert!(ApiKey::parse(text).is_err(), "{text}");
    }
}

#[test]
fn fingerprints_are_as_openssl_prints_them() {
    assert_eq!(
        fingerprint(b""),
        "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"
    );
}

fn request(address: &str, headers: &[(ProxyCertificateHeader, &str)]) -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).unwrap();
        map.append(name, value.parse().unwrap());
    }
    Request {
        method: Method::GET,
        raw_path: "/".to_owned(),
        raw_query: String::new(),
        headers: map,
        body: Bytes::new(),
        peer: Peer::new(address.parse().unwrap(), true),
    }
}

fn proxy(header: ProxyCertificateHeader, proxies: &str) -> TrustedProxy {
    TrustedProxy {
        header,
        proxies: proxies.parse().unwrap(),
    }
}

/// The form of nginx's `$ssl_client_escaped_cert`: everything but unreserved characters is encoded.
const NGINX: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The form of AWS load balancers.
const AMAZON: &AsciiSet = &NGINX.remove(b'+').remove(b'=').remove(b'/');

#[test]
fn encoding_of_every_trusted_proxy_is_read() {
    assert!(
        P256.contains('+') && P256.contains('/'),
        "the interesting ones"
    );
    let nginx = utf8_percent_encode(P256, NGINX).to_string();
    let amazon = utf8_percent_encode(P256, AMAZON).to_string();
    // The form of Go's url.QueryEscape and Python's quote_plus.
    let form = nginx.replace("%20", "+");
    assert!(nginx.contains("%2B") && !nginx.contains('+'));
    assert!(amazon.contains('+') && !amazon.contains("%2B"));
    assert!(form.starts_with("-----BEGIN+CERTIFICATE-----%0A") && form.contains("%2B"));
    let lower = nginx.replace("%2B", "%2b").replace("%0A", "%0a");
    let windows = nginx.replace("%0A", "%0D%0A");
    for header in ProxyCertificateHeader::ALL {
        for text in [&nginx, &amazon, &form, &lower, &windows] {
            let request = request("10.1.2.3", &[(header, text)]);
            let found = TrustedProxy::identify(Some(&proxy(header, "10.0.0.0/8")), &request);
            assert_eq!(found.unwrap().to_string(), P256_IDENTITY, "{text}");
        }
    }
    // Form decoding would lose a load balancer's `+`, and with it the certificate.
    let lost = amazon.replace('+', "%20");
    let request = request(
        "10.1.2.3",
        &[(ProxyCertificateHeader::AmznMtlsClientcert, &lost)],
    );
    let proxy = proxy(ProxyCertificateHeader::AmznMtlsClientcert, "10.0.0.0/8");
    assert_ne!(
        TrustedProxy::identify(Some(&proxy), &request).map(|identity| identity.to_string()),
        Ok(P256_IDENTITY.to_owned())
    );
}

#[test]
fn chain_of_a_load_balancer_is_judged_as_any_other() {
    let header = ProxyCertificateHeader::AmznMtlsClientcert;
    let proxy = proxy(header, "10.0.0.0/8");
    let of = |chain: &[&str]| {
        let text = utf8_percent_encode(&chain.concat(), AMAZON).to_string();
        TrustedProxy::identify(Some(&proxy), &request("10.1.2.3", &[(header, &text)]))
    };
    assert_eq!(of(&[P256, AUTHORITY]), of(&[P256]));
    assert!(of(&[P256]).is_ok());
    assert_eq!(of(&[P256, ED25519]), Err(Unidentified::Several));
    assert_eq!(of(&[AUTHORITY, P256]), Err(Unidentified::Missing));
}

#[test]
fn header_of_an_untrusted_peer_is_ignored() {
    let text = utf8_percent_encode(P256, NGINX).to_string();
    let header = ProxyCertificateHeader::TlsClientCert;
    let forged = request("192.0.2.1", &[(header, &text)]);
    let missing = Err(Unidentified::Missing);
    assert_eq!(TrustedProxy::identify(None, &forged), missing);
    let configured = proxy(header, "10.0.0.0/8");
    assert_eq!(TrustedProxy::identify(Some(&configured), &forged), missing);

    // A client's own certificate decides its identity; the header changes nothing, however often it occurs.
    let der = CertificateDer::from_pem_slice(ED25519.as_bytes()).unwrap();
    let der: Arc<[Bytes]> = Arc::new([Bytes::copy_from_slice(&der)]);
    for headers in [
        &[][..],
        &[(header, text.as_str())],
        &[(header, text.as_str()); 2],
    ] {
        for shown in [
            ClientCertificate::Der(Arc::clone(&der)),
            ClientCertificate::Pem(ED25519.into()),
        ] {
            let mut request = request("192.0.2.1", headers);
            request.peer.client_certificate = Some(shown);
            for proxy in [None, Some(&configured)] {
                let found = TrustedProxy::identify(proxy, &request).unwrap();
                assert_eq!(found.to_string(), ED25519_IDENTITY);
            }
        }
    }

    // Any header but the configured one is ignored, also from the proxy.
    let other = request(
        "10.1.2.3",
        &[(ProxyCertificateHeader::AmznMtlsClientcert, &text)],
    );
    assert_eq!(TrustedProxy::identify(Some(&configured), &other), missing);
}

#[test]
fn certificate_of_the_proxy_itself_is_not_its_clients() {
    let text = utf8_percent_encode(P256, NGINX).to_string();
    let header = ProxyCertificateHeader::TlsClientCert;
    for proxies in [
        ED25519_IDENTITY,
        "2001:db8::/32",
        "192.0.2.7, ::1",
        "192.0.2.7",
    ] {
        let proxy = proxy(header, proxies);
        let through = |headers: &[(ProxyCertificateHeader, &str)]| {
            let address = match proxies {
                "2001:db8::/32" => "2001:db8::1",
                _ => "::ffff:192.0.2.7",
            };
            let mut request = request(address, headers);
            request.peer.client_certificate = Some(ClientCertificate::Pem(ED25519.into()));
            TrustedProxy::identify(Some(&proxy), &request)
        };
        assert_eq!(
            through(&[(header, &text)]).unwrap().to_string(),
            P256_IDENTITY
        );
        assert_eq!(through(&[]), Err(Unidentified::Missing));
        assert_eq!(through(&[(header, "")]), Err(Unidentified::Missing));
        assert_eq!(through(&[(header, "%")]), Err(Unidentified::Missing));
        assert_eq!(through(&[(header, "%ff")]), Err(Unidentified::Malformed));
        let twice = [(header, text.as_str()); 2];
        assert_eq!(through(&twice), Err(Unidentified::Several));
    }
    let everybody = TrustedProxy {
        header,
        proxies: TrustedProxies::Everybody,
    };
    let request = request("192.0.2.1", &[(header, &text)]);
    assert!(TrustedProxy::identify(Some(&everybody), &request).is_ok());
}

#[test]
fn settings_of_trusted_proxies_are_read_strictly() {
    assert_eq!(
        "x-amzn-mtls-clientcert-leaf".parse(),
        Ok(ProxyCertificateHeader::AmznMtlsClientcertLeaf)
    );
    let unknown = "X-Client-Cert".parse::<ProxyCertificateHeader>();
    assert_eq!(
        unknown,
        Err(TrustedProxyError::Header("X-Client-Cert".to_owned()))
    );
    assert_eq!(
        " , ".parse::<TrustedProxies>(),
        Err(TrustedProxyError::Nobody)
    );
    for entry in [
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/",
        "::/129",
        "nginx",
        "10.0.0",
        "::1/64",
    ] {
        let read = format!("10.0.0.0/8,{entry}").parse::<TrustedProxies>();
        assert_eq!(read, Err(TrustedProxyError::Entry(entry.to_owned())));
    }
}

#[test]
fn network_holds_addresses_with_its_prefix() {
    let holds = |network: &str, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        network.parse::<Network>().unwrap().contains(address)
    };
    for (network, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.0"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("::ffff:0:0/96", "255.255.255.255", "::1"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "ffff::", "1.2.3.4"),
        ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
        ("::1", "::1", "::2"),
    ] {
        assert!(holds(network, inside), "{network} {inside}");
        assert!(!holds(network, outside), "{network} {outside}");
    }
}
