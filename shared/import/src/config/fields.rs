//! Lists every field of KES's configuration: whether Keyway takes it over, and what to do instead.

use serde_json::{Map, Value};

/// Whether a field is used.
#[derive(Debug, Clone, Copy)]
enum Fate {
    TakenOver,
    /// The field is not used. The text says what to do instead.
    LeftOut(&'static str),
}

use Fate::{LeftOut, TakenOver};

const STORE: Fate = LeftOut(
    "Keyway keeps keys in its own table; write those of this store to files and bring them with `keyway import kes --from-dir`",
);
const CACHE: Fate = LeftOut(
    "how long processes remember is set by --state-ttl-seconds and the cache of the service",
);
const LOG: Fate = LeftOut("both logs are always written; KEYWAY_LOG sets the level");
const CLIENT_CA: Fate = LeftOut("pass the authorities of clients with --kes-client-ca");

/// The fields of all releases, with `*` for a name that the operator chose.
const FIELDS: [(&str, Fate); 33] = [
    ("version", TakenOver),
    ("root", TakenOver),
    ("admin.identity", TakenOver),
    ("policy.*.paths", TakenOver),
    ("policy.*.allow", TakenOver),
    ("policy.*.deny", TakenOver),
    ("policy.*.identities", TakenOver),
    ("api.*.skip_auth", TakenOver),
    ("tls.proxy.identities", TakenOver),
    ("tls.proxy.header.cert", TakenOver),
    ("address", LeftOut("pass it with --kes-listen")),
    ("tls.key", LeftOut("pass the file with --kes-key")),
    ("tls.cert", LeftOut("pass the file with --kes-cert")),
    (
        "tls.password",
        LeftOut("a key under a password is not read: decrypt the file of --kes-key"),
    ),
    ("tls.auth", CLIENT_CA),
    ("tls.ca", CLIENT_CA),
    (
        "api.*.timeout",
        LeftOut("timeouts are fixed: /v1/api lists them"),
    ),
    ("cache.expiry.any", CACHE),
    ("cache.expiry.unused", CACHE),
    ("cache.expiry.offline", CACHE),
    ("log.error", LOG),
    ("log.audit", LOG),
    (
        "keystore.fs",
        LeftOut("bring its keys with `keyway import kes --from-dir`"),
    ),
    ("keystore.vault", STORE),
    (
        "keystore.aws",
        LeftOut("bring its keys with `keyway import kes --from-secrets-manager`"),
    ),
    ("keystore.gcp", STORE),
    ("keystore.azure", STORE),
    ("keystore.gemalto", STORE),
    ("keystore.fortanix", STORE),
    ("keystore.entrust", STORE),
    ("keystore.generic", STORE),
    ("keystore.kes", STORE),
    (
        "enclave",
        LeftOut("there are no enclaves: a deployment is one"),
    ),
];

/// Up to v0.18 `keys` held the key store. Later releases list there the keys to make.
const KEYS: &str = "keys";

/// One line for each field of a configuration that has a value and is not used.
pub(super) fn left_out(file: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Value::Object(fields) = file {
        walk(fields, &mut Vec::new(), &mut lines);
    }
    lines
}

fn walk(fields: &Map<String, Value>, above: &mut Vec<String>, lines: &mut Vec<String>) {
    for (name, value) in fields {
        above.push(name.clone());
        match fate(above, value) {
            Some(TakenOver) => {}
            Some(LeftOut(instead)) if says_something(value) => {
                lines.push(format!("{}: {instead}", shown(above)));
            }
            Some(LeftOut(_)) => {}
            None => match value {
                Value::Object(below) => walk(below, above, lines),
                value if says_something(value) => lines.push(format!(
                    "{}: is no field of KES's configuration that Keyway knows",
                    shown(above)
                )),
                _ => {}
            },
        }
        above.pop();
    }
}

fn fate(path: &[String], value: &Value) -> Option<Fate> {
    match path {
        [keys] if keys == KEYS && value.is_array() => return Some(TakenOver),
        [keys, store] if keys == KEYS => {
            let named = format!("keystore.{store}");
            return FIELDS
                .iter()
                .find(|(field, _)| *field == named)
                .map(|(_, fate)| *fate);
        }
        _ => {}
    }
    let fits = |field: &str| {
        let parts: Vec<&str> = field.split('.').collect();
        parts.len() == path.len()
            && parts
                .iter()
                .zip(path)
                .all(|(part, name)| *part == "*" || part == name)
    };
    FIELDS
        .iter()
        .find(|(field, _)| fits(field))
        .map(|(_, fate)| *fate)
}

/// Whether the value is not empty. Sample configurations have every field, and most are empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(fields) => fields.values().any(says_something),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The longest name that a line repeats, in bytes.
const LONGEST: usize = 64;

/// The path, with `?` for a part that does not look like a name, because it may be a credential in the wrong place.
fn shown(path: &[String]) -> String {
    let shown = path.iter().map(|name| {
        let is_name = name.len() <= LONGEST
            && (name.starts_with("/v1/")
                || name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-' | b'0'..=b'9')));
        if is_name { name.as_str() } else { "?" }
    });
    shown.collect::<Vec<_>>().join(".")
}
