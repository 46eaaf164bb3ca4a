//! Describes this dialect for the OpenAPI document. Methods and paths come from the endpoints.

use http::Method;
use keyway_openapi::{Answer, Description, Operation, Parameter, RequestBody, Schema};
use serde_json::{Value, json};

use crate::access::{
    AssignBody, IdentityDescribed, IdentityHolder, IdentityLine, IdentityPage, IdentityPolicy,
    PolicyArrays, PolicyAuthor, PolicyBody, PolicyLine, PolicyPage, PolicyPaths, PolicyRead,
    PolicyRules, SelfDescribed, SelfNested,
};
use crate::endpoint::spellings;
use crate::wire::Object;
use crate::{Kes, Needs, Permission, datakey, hmac, import, keys, log, server};

const KEYS: &str = "kes keys";
const ACCESS: &str = "kes access";
const LOGS: &str = "kes logs";

/// The description of this dialect's routes.
pub fn description() -> Description<Kes> {
    Description::new(
        "kes",
        "KES's API: the server itself. KES's API has a listener of its own, over TLS, and on AWS a domain of its own; behind a load \
         balancer it shares the address with the other APIs. Each release of KES has some of these routes, and `/v1/api` lists those \
         of the release that the server answers as; all of them are served. Where releases answer differently, a schema has a choice \
         for each shape. Names of fields are taken in any case; unknown fields and parameters are ignored, and the last of several \
         fields is taken. `x-other-paths` are other spellings of an operation's path: they do the same, or refuse the request because \
         it lacks a name. An unknown path is answered 404 in plain text, or 501 where KES has it and this server does not; a described \
         path by another method is answered 405 with the method in `Accept`. A policy allows paths: a caller needs permission for the \
         path that it calls. `x-permission` is the name of the operation in the audit log. A call that takes \
         longer than `x-timeout-seconds` gets no answer: the server closes the connection or resets the stream.",
    )
    .tag(KEYS, "KES's API: master keys and data keys.")
    .tag(ACCESS, "KES's API: policies and identities.")
    .tag(LOGS, "KES's API: the logs.")
    .permission(permission)
    .timeout(|needs: Needs| needs.timeout)
    .security(
        "CertificateOfKes",
        json!({
            "type": "mutualTLS",
            "description": "A client's certificate. The SHA-256 of its public key is the identity.",
        }),
    )
    .schema(refusal())
    .operations(of_server())
    .operations(of_keys())
    .operations(of_data_keys())
    .operations(of_policies())
    .operations(of_changes_of_policies())
    .operations(of_identities())
    .operations(of_logs())
    .word("created_at", json!({"format": "date-time"}))
    .word("names", json!({"description": "In the order of their bytes, 1,000 at most."}))
    .word("continue_at", json!({"description": "The pattern that lists what follows, where there is more."}))
}

fn permission(needs: Needs) -> Option<&'static str> {
    match needs.permission {
        Permission::Call(action) => Some(action.as_str()),
        Permission::None | Permission::Identity | Permission::Path => None,
    }
}

fn refusal() -> Schema {
    Schema::named(
        "KesError",
        json!({
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string", "description": "KES's own text, by which its clients tell errors apart."},
                "reason": {"type": "string", "description": "Why a key cannot be used so. KES has no such field."},
            },
            "additionalProperties": false,
        }),
    )
}

/// The description of one of KES's APIs, with all of its methods and spellings.
struct Said {
    /// The path as `/v1/api` lists it.
    path: &'static str,
    id: &'static str,
    /// The id for the second method, if there is one.
    other_id: &'static str,
    summary: &'static str,
    text: &'static str,
    tag: &'static str,
    parameters: Vec<Parameter>,
    segments: &'static [&'static str],
    body: Option<RequestBody>,
    answer: Answer,
    /// The statuses of error responses besides those that every route has.
    refusals: &'static [u16],
}

impl Said {
    fn new(path: &'static str, ids: [&'static str; 2], summary: &'static str) -> Self {
        let [id, other_id] = ids;
        Self {
            path,
            id,
            other_id,
            summary,
            text: "",
            tag: KEYS,
            parameters: Vec::new(),
            segments: &[],
            body: None,
            answer: Answer::empty("It is done."),
            refusals: &[],
        }
    }

    fn text(mut self, text: &'static str) -> Self {
        self.text = text;
        self
    }

    /// The path ends in the name of a key, a policy or an identity.
    fn named(mut self, name: &'static str) -> Self {
        let segments: &[&str] = match name {
            "key" => &["key"],
            "policy" => &["policy"],
            _ => &["identity"],
        };
        self.segments = segments;
        self.parameters.push(name_in_path(name));
        self.or_refused(&[404])
    }

    fn body(mut self, body: RequestBody) -> Self {
        self.body = Some(body);
        self
    }

    fn answer(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    fn or_refused(mut self, statuses: &'static [u16]) -> Self {
        self.refusals = statuses;
        self
    }

    /// One operation for each method. Its path is the one with the name; the others are listed as spellings.
    fn operations(self) -> Vec<Operation> {
        let (methods, paths) = spellings(self.path);
        let own = paths.iter().find(|path| path.contains('{'));
        let own = own.or_else(|| paths.first()).copied().unwrap_or(self.path);
        let others = paths.iter().copied().filter(|path| *path != own);
        let others: Vec<&'static str> = others.collect();
        let ids = [self.id, self.other_id];
        let mut operations = Vec::new();
        for (method, id) in methods.iter().zip(ids) {
            operations.push(self.operation(method, own, id, &others));
        }
        operations
    }

    fn operation(
        &self,
        method: &Method,
        path: &'static str,
        id: &'static str,
        others: &[&'static str],
    ) -> Operation {
        const ALWAYS: [u16; 6] = [400, 403, 500, 501, 502, 503];
        let is_head = method == Method::HEAD;
        let answer = if is_head {
            Answer::empty("It would be answered so by GET.")
        } else {
            self.answer.clone()
        };
        let operation = Operation::new(method.clone(), path, id, self.summary)
            .text(self.text)
            .tag(self.tag)
            .segments(self.segments)
            .other_paths(others.iter().copied())
            .parameters(self.parameters.clone())
            .answer(200, answer);
        let operation = match &self.body {
            Some(body) => operation.body(body.clone()),
            None => operation,
        };
        let statuses = ALWAYS.iter().chain(self.refusals);
        let operation = statuses.fold(operation, |operation, &status| {
            operation.answer(status, refused(is_head))
        });
        // Answers of the logs do not end, and a probe has its own 504.
        if self.tag == LOGS || self.refusals.contains(&504) {
            return operation;
        }
        operation.answer(
            504,
            Answer::empty("A function answers a call so that takes longer than its timeout."),
        )
    }
}

fn refused(is_head: bool) -> Answer {
    if is_head {
        return Answer::empty("It is refused.");
    }
    let error = || Schema::of(json!({"$ref": "#/components/schemas/KesError"}));
    Answer::json(
        "It is refused; `message` says why. The second type is that of releases before 2023-10-24.",
        error(),
    )
    .or("application/json; charset=utf-8", error())
    .shared("KesRefused")
}

fn name_in_path(name: &'static str) -> Parameter {
    let text = "1 to 80 of `A-Z`, `a-z`, `0-9`, `_`, `-`, not beginning or ending with `-`, and not `_` alone.";
    let schema = json!({
        "type": "string",
        "pattern": "^(?!_$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,78}[A-Za-z0-9_])?$",
    });
    Parameter::path(name, text, schema)
}

/// A listing with a pattern. The path without a pattern is one of its spellings.
fn listing(
    path: &'static str,
    ids: [&'static str; 2],
    summary: &'static str,
    answer: Answer,
) -> Said {
    let pattern = Parameter::path(
        "pattern",
        "The beginning of names, or a pattern with `*`, `?` and `[...]`; `~` and a name behind it list what follows the name. \
         Without a pattern, by the path that ends before it, everything is listed.",
        json!({"type": "string"}),
    );
    Said {
        parameters: vec![pattern],
        segments: &["pattern"],
        ..Said::new(path, ids, summary)
    }
    .text(
        "The latest release answers a page for a beginning, and for a pattern a page, lines or an array, as `Accept` says; others \
         answer all names in one shape of their own.",
    )
    .answer(answer)
}

fn base64(text: &str) -> Value {
    json!({
        "type": ["string", "array", "null"],
        "description": format!("{text} Standard base64 with padding, or the bytes as numbers; `null` is none."),
        "contentEncoding": "base64",
        "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        "items": {"type": "integer", "minimum": 0, "maximum": 255},
    })
}

fn flat(said: Vec<Said>) -> Vec<Operation> {
    said.into_iter().flat_map(Said::operations).collect()
}

fn of_server() -> Vec<Operation> {
    let server = |path, ids, summary| Said {
        tag: "kes",
        ..Said::new(path, ids, summary)
    };
    let mut operations = flat(vec![
        server("/v1/ready", ["kesReady", "headKesReady"], "Whether the server can do its work")
            .text("Needs no certificate where `--kes-open` names it.")
            .answer(Answer::empty("It can."))
            .or_refused(&[504]),
        server("/v1/status", ["kesStatus", "headKesStatus"], "Tell how the server does")
            .text("Needs no certificate where `--kes-open` names it.")
            .answer(Answer::json(
                "How it does. `uptime` is in seconds of the latest release and in nanoseconds of others.",
                Schema::any_of(
                    "KesStatus",
                    [
                        Schema::encoded::<server::Status>("KesStatusOfLatest"),
                        Schema::encoded::<server::OldStatus>("KesStatusOf017"),
                    ],
                ),
            )),
        server("/v1/metrics", ["kesMetrics", ""], "Tell what the process has counted")
            .text("Needs no certificate where `--kes-open` names it.")
            .answer(Answer::with(
                "The metrics by KES's names, in Prometheus's text format.",
                "text/plain; version=0.0.4; charset=utf-8",
                Schema::of(json!({"type": "string"})),
            )),
        server("/v1/api", ["kesApis", ""], "List the routes of this API")
            .text("Needs no certificate where `--kes-open` names it. The routes are those of the release that is set.")
            .answer(Answer::json("The routes.", Schema::encoded::<Vec<server::Api>>("KesApis"))),
    ]);
    let version = server(
        "/version",
        ["kesVersion", "headKesVersion"],
        "Tell the version",
    )
    .text("Releases before 2023 answer without the commit.")
    .answer(Answer::json(
        "The version.",
        Schema::encoded::<server::Version>("KesVersion"),
    ));
    operations.extend(version.operations().into_iter().map(Operation::anonymous));
    operations
}

fn of_keys() -> Vec<Operation> {
    flat(vec![
        Said::new("/v1/key/create/", ["kesCreateKey", "kesCreateKeyByPost"], "Create a key")
            .text("A body is not read.")
            .named("key"),
        Said::new("/v1/key/import/", ["kesImportKey", "kesImportKeyByPost"], "Import a key")
            .text("`key` and `cipher` are those of the latest release; older ones call the material `bytes`.")
            .named("key")
            .body(
                RequestBody::json(
                    Schema::decoded::<Object<import::Body>>("KesImportKey")
                        .fact("key", base64("32 bytes."))
                        .fact("bytes", base64("32 bytes."))
                        .fact("cipher", json!({"examples": ["AES256", "ChaCha20"]})),
                )
                .example(
                    "key",
                    json!({"key": "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=", "cipher": "AES256"}),
                ),
            )
            .or_refused(&[406]),
        Said::new("/v1/key/describe/", ["kesDescribeKey", ""], "Describe a key")
            .named("key")
            .answer(Answer::json("The key.", Schema::encoded::<keys::Described<'_>>("KesKey"))),
        Said::new("/v1/key/delete/", ["kesDeleteKey", "kesDeleteKeyByPost"], "Delete a key")
            .text("At once, or in seven days where `--kes-delete schedule` is set.")
            .named("key"),
        listing(
            "/v1/key/list/",
            ["kesListKeys", ""],
            "List keys",
            Answer::json("Some of the keys.", Schema::encoded::<keys::Page>("KesKeyPage"))
                .or(NDJSON, Schema::named("KesKeyLine", json!({
                    "description": "One line.",
                    "type": "object",
                    "oneOf": [{"required": ["name"]}, {"required": ["Name"]}],
                    "properties": {"name": {"type": "string"}, "Name": {"type": "string"}},
                    "additionalProperties": false,
                }))),
        ),
    ])
}

const NDJSON: &str = "application/x-ndjson";

fn of_data_keys() -> Vec<Operation> {
    let context = || base64("Bound to the ciphertext, which is opened with the same bytes only.");
    let plaintext = || base64("What is sealed.");
    let ciphertext = || base64("What was sealed.");
    let body = Schema::decoded::<Object<datakey::Body>>;
    flat(vec![
        Said::new(
            "/v1/key/generate/",
            ["kesGenerateDataKey", "kesGenerateDataKeyByPost"],
            "Make a data key",
        )
        .named("key")
        .body(
            RequestBody::json_or_none(
                body("KesGenerateDataKey")
                    .without(&["plaintext", "ciphertext"])
                    .fact("context", context()),
            )
            .example("context", json!({"context": "e30="})),
        )
        .answer(Answer::json(
            "The data key, and the same sealed.",
            Schema::encoded::<datakey::Generated>("KesDataKey"),
        )),
        Said::new(
            "/v1/key/encrypt/",
            ["kesEncrypt", "kesEncryptByPost"],
            "Encrypt",
        )
        .named("key")
        .body(
            RequestBody::json(
                body("KesEncrypt")
                    .without(&["ciphertext"])
                    .fact("plaintext", plaintext())
                    .fact("context", context()),
            )
            .example("text", json!({"plaintext": "SGVsbG8gV29ybGQhCg=="})),
        )
        .answer(Answer::json(
            "It is sealed.",
            Schema::encoded::<datakey::Encrypted>("KesEncrypted"),
        )),
        Said::new(
            "/v1/key/decrypt/",
            ["kesDecrypt", "kesDecryptByPost"],
            "Decrypt",
        )
        .named("key")
        .body(RequestBody::json(
            body("KesDecrypt")
                .without(&["plaintext"])
                .fact("ciphertext", ciphertext())
                .fact("context", context()),
        ))
        .answer(Answer::json(
            "It is opened.",
            Schema::encoded::<datakey::Decrypted>("KesDecrypted"),
        )),
        bulk_decrypt(context(), ciphertext()),
        hmac(),
    ])
}

fn bulk_decrypt(context: Value, ciphertext: Value) -> Said {
    Said::new(
        "/v1/key/bulk/decrypt/",
        ["kesDecryptMany", "kesDecryptManyByPost"],
        "Decrypt up to 1,000 ciphertexts",
    )
    .text("All of them are decrypted or none.")
    .named("key")
    .body(RequestBody::json(
        Schema::decoded::<Option<Vec<Object<datakey::Body>>>>("KesDecryptMany")
            .fact("", json!({"maxItems": datakey::MAX_BULK}))
            .fact("[].plaintext", json!({"description": "Not used."}))
            .fact("[].ciphertext", ciphertext)
            .fact("[].context", context),
    ))
    .answer(Answer::json(
        "They are opened, in their order.",
        Schema::encoded::<Vec<datakey::Decrypted>>("KesManyDecrypted"),
    ))
}

fn hmac() -> Said {
    Said::new(
        "/v1/key/hmac/",
        ["kesHmac", "kesHmacByPost"],
        "Make an HMAC",
    )
    .named("key")
    .body(
        RequestBody::json(
            Schema::decoded::<Object<hmac::Body>>("KesHmac")
                .fact("message", base64("The message.")),
        )
        .example("message", json!({"message": "SGVsbG8="})),
    )
    .answer(Answer::json(
        "The HMAC-SHA256.",
        Schema::encoded::<hmac::Mac>("KesMac"),
    ))
    .or_refused(&[404, 409])
}

/// An API of policies or identities.
fn access(path: &'static str, ids: [&'static str; 2], summary: &'static str) -> Said {
    Said {
        tag: ACCESS,
        ..Said::new(path, ids, summary)
    }
}

fn of_policies() -> Vec<Operation> {
    flat(vec![
        access(
            "/v1/policy/describe/",
            ["kesDescribePolicy", ""],
            "Describe a policy",
        )
        .named("policy")
        .answer(Answer::json(
            "The policy.",
            Schema::any_of(
                "KesPolicyAuthor",
                [
                    Schema::encoded::<PolicyLine>("KesPolicyAuthorOfLatest"),
                    Schema::encoded::<PolicyAuthor<'_>>("KesPolicyAuthorOf022"),
                ],
            ),
        )),
        access("/v1/policy/read/", ["kesReadPolicy", ""], "Read a policy")
            .text("Releases before v0.15 know no `deny`: a policy that has one is answered 501.")
            .named("policy")
            .answer(Answer::json(
                "The policy and its rules.",
                Schema::any_of(
                    "KesPolicy",
                    [
                        Schema::encoded::<PolicyRead<'_>>("KesPolicyOfLatest"),
                        Schema::encoded::<PolicyArrays<'_>>("KesPolicyOf022"),
                        Schema::encoded::<PolicyRules<'_>>("KesPolicyOf017"),
                        Schema::encoded::<PolicyPaths<'_>>("KesPolicyOf013"),
                    ],
                ),
            )),
        Said {
            tag: ACCESS,
            ..listing(
                "/v1/policy/list/",
                ["kesListPolicies", ""],
                "List policies",
                Answer::json(
                    "Some of the policies, or the names of all.",
                    Schema::any_of(
                        "KesPolicies",
                        [
                            Schema::encoded::<PolicyPage>("KesPolicyPage"),
                            Schema::encoded::<Vec<String>>("KesPolicyNames"),
                        ],
                    ),
                )
                .or(NDJSON, Schema::encoded::<PolicyLine>("KesPolicyLine")),
            )
        },
    ])
}

fn of_changes_of_policies() -> Vec<Operation> {
    let rules = || {
        json!({
            "type": ["object", "array", "null"],
            "description": "Patterns of paths: an object whose values are ignored, or an array.",
            "items": {"type": "string"},
        })
    };
    flat(vec![
        access(
            "/v1/policy/write/",
            ["kesWritePolicy", "kesWritePolicyByPost"],
            "Write a policy",
        )
        .text("The latest release has no such route; here policies are kept in the table.")
        .named("policy")
        .body(
            RequestBody::json(
                Schema::decoded::<Object<PolicyBody>>("KesWritePolicy")
                    .fact("allow", rules())
                    .fact("deny", rules())
                    .fact("paths", rules()),
            )
            .example("minio", json!({"allow": {"/v1/key/generate/minio-*": {}}})),
        ),
        access(
            "/v1/policy/assign/",
            ["kesAssignPolicy", "kesAssignPolicyByPost"],
            "Give an identity a policy",
        )
        .named("policy")
        .body(RequestBody::json(Schema::decoded::<Object<AssignBody>>(
            "KesAssignPolicy",
        ))),
        access(
            "/v1/policy/delete/",
            ["kesDeletePolicy", ""],
            "Delete a policy",
        )
        .named("policy"),
    ])
}

fn of_identities() -> Vec<Operation> {
    flat(vec![
        access("/v1/identity/describe/", ["kesDescribeIdentity", ""], "Describe an identity")
            .named("identity")
            .answer(Answer::json("The identity.", Schema::any_of("KesIdentity", [
                Schema::encoded::<IdentityDescribed>("KesIdentityOfLatest"),
                Schema::encoded::<IdentityPolicy>("KesIdentityOf022"),
            ]))),
        access("/v1/identity/self/describe", ["kesDescribeSelf", ""], "Describe the caller")
            .text("Needs a certificate and no permission.")
            .answer(Answer::json("The caller, and what its policy permits.", Schema::any_of("KesSelf", [
                Schema::encoded::<SelfDescribed<'_>>("KesSelfOfLatest"),
                Schema::encoded::<SelfNested<'_>>("KesSelfOf022"),
            ])))
            .or_refused(&[404]),
        Said {
            tag: ACCESS,
            ..listing(
                "/v1/identity/list/",
                ["kesListIdentities", ""],
                "List identities",
                Answer::json("Some of the identities, or all with their policies.", Schema::any_of("KesIdentities", [
                    Schema::encoded::<IdentityPage>("KesIdentityPage"),
                    Schema::of(json!({"type": "object", "additionalProperties": {"type": "string"}})),
                ]))
                .or(NDJSON, Schema::any_of("KesIdentityLine", [
                    Schema::encoded::<IdentityLine>("KesIdentityLineOfLatest"),
                    Schema::encoded::<IdentityHolder>("KesIdentityLineOf017"),
                ])),
            )
        },
        Said {
            parameters: vec![name_in_path("policy"), name_in_path("identity")],
            segments: &["policy", "identity"],
            ..access("/v1/identity/assign/", ["kesAssignIdentity", "kesAssignIdentityByPost"], "Give an identity a policy")
        }
        .or_refused(&[404]),
        access("/v1/identity/forget/", ["kesForgetIdentity", ""], "Forget an identity").named("identity"),
        access("/v1/identity/delete/", ["kesDeleteIdentity", ""], "Forget an identity").named("identity"),
    ])
}

fn of_logs() -> Vec<Operation> {
    let log = |path, id, summary| Said {
        tag: LOGS,
        ..Said::new(path, [id, ""], summary)
    };
    flat(vec![
        log("/v1/log/error", "kesErrorLog", "Follow the error log")
            .text("The answer goes on. Its first line is empty, and so is one line in 20 seconds of silence. A server that \
             cannot stream answers 501.")
            .answer(Answer::with("Each error.", NDJSON, Schema::encoded::<log::ErrorEvent<'_>>("KesErrorEvent"))),
        Said {
            parameters: vec![
                Parameter::query("since", "Only events from this time on.", json!({"type": "string", "format": "date-time"})),
                Parameter::query(
                    "continue_at",
                    "Where the page before ended: its `X-Continue-At`.",
                    json!({"type": "string"}),
                ),
            ],
            ..log("/v1/log/audit", "kesAuditLog", "Follow the audit log, or read a page of it")
        }
        .text(
            "Without `since` the answer goes on; its first line is empty, and so is one line in 20 seconds of silence. A server \
             that cannot stream answers 501. With `since` it is a page of what the table has, and `X-Continue-At` is there where more follows.",
        )
        .answer(Answer::with("Each event.", NDJSON, Schema::encoded::<log::AuditEvent<'_>>("KesAuditEvent"))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, json};

    /// No field accepts `true`, and unknown fields are ignored.
    fn takes_its_names<T: Fields>() {
        assert!(json::<Object<T>>(br#"{"other":true}"#).is_ok());
        for name in T::NAMES {
            let body = format!("{{\"{}\":true}}", name.to_ascii_uppercase());
            assert!(json::<Object<T>>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn decoders_take_the_fields_that_they_name() {
        takes_its_names::<datakey::Body>();
        takes_its_names::<hmac::Body>();
        takes_its_names::<import::Body>();
        takes_its_names::<PolicyBody>();
        takes_its_names::<AssignBody>();
    }
}
