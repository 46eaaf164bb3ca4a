"""The life of a key and of a data key, signed by botocore in every way it can sign.

Usage: botocore_client.py BASE_URL, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps
AWS_SESSION_TOKEN set. BASE_URL ends in the API's prefix. Prints one JSON line for each check that
held; ends with another code than 0 at the first that did not.
"""

import base64
import json
import os
import random
import sys
import urllib.parse

import requests
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

BASE = sys.argv[1]
CREDENTIALS = Credentials(
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    os.environ.get("AWS_SESSION_TOKEN"),
)
SESSION = requests.Session()
SIGNERS = {
    "header": lambda service: SigV4Auth(CREDENTIALS, service, "us-east-1"),
    "header-s3": lambda service: S3SigV4Auth(CREDENTIALS, service, "us-east-1"),
    "query": lambda service: SigV4QueryAuth(CREDENTIALS, service, "us-east-1", expires=60),
    "query-s3": lambda service: S3SigV4QueryAuth(CREDENTIALS, service, "us-east-1", expires=60),
}
# AWS's own clients use S3's canonical form with S3's scope, and the general one with the others.
WAYS = [
    ("header", "execute-api"),
    ("header", "kms"),
    ("header", "sts"),
    ("header-s3", "s3"),
    ("query", "execute-api"),
    ("query", "kms"),
    ("query-s3", "s3"),
]


def send(way, method, path, body=None):
    """The answer to a signed request; `path` may carry a query and is sent unchanged."""
    form, service = way
    data = b"" if body is None else json.dumps(body).encode()
    if form == "query" and data:
        # botocore cannot presign a body: it would move the body's fields into the query.
        form, service = WAYS[0]
    # S3's presigned requests leave the body out of the signature.
    request = AWSRequest(method=method, url=BASE + path, data=b"" if form == "query-s3" else data)
    if data and form != "query-s3":
        request.headers["content-type"] = "application/json"
    SIGNERS[form](service).add_auth(request)
    prepared = request.prepare()
    # requests would normalise path and query, but the signature covers these bytes.
    plain = requests.Request(method, BASE, headers=dict(prepared.headers), data=data).prepare()
    plain.url = prepared.url
    return SESSION.send(plain)


def ok(way, method, path, body=None):
    answer = send(way, method, path, body)
    assert answer.status_code == 200, (way, method, path, answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(way, method, path, body, status, code):
    answer = send(way, method, path, body)
    found = (answer.status_code, answer.json()["code"])
    assert found == (status, code), (way, method, path, found, answer.text)
    return answer.json()


def held(check, way):
    print(json.dumps({"check": check, "way": "/".join(way)}), flush=True)


def life(way):
    key = "life-" + "-".join(way)
    made = ok(way, "POST", "/kms/keys", {"Tags": {"name": key, "owner": "a b+c/d"}, "Description": "für Tests"})
    assert made["key_id"] == key and made["key_metadata"]["description"] == "für Tests"
    refused(way, "POST", "/kms/keys", {"key_id": key}, 409, "KeyAlreadyExists")
    described = ok(way, "GET", "/kms/keys/" + key)["key_metadata"]
    assert described == made["key_metadata"]
    assert described["tags"] == {"name": key, "owner": "a b+c/d"}
    listed = ok(way, "GET", "/kms/keys?limit=1000")["keys"]
    assert key in [entry["key_id"] for entry in listed]
    held("a key is made, described and listed", way)

    context = {"bucket": "analytics", "object": "2024/09/ü.parquet"}
    generated = ok(way, "POST", "/kms/generate-data-key", {"key_id": key, "encryption_context": context})
    assert len(base64.b64decode(generated["plaintext_key"], validate=True)) == 32
    sealed = {"ciphertext_blob": generated["ciphertext_blob"], "encryption_context": context}
    assert ok(way, "POST", "/kms/decrypt", sealed)["plaintext"] == generated["plaintext_key"]
    refused(way, "POST", "/kms/decrypt", {**sealed, "encryption_context": {}}, 400, "DecryptionFailed")
    ok(way, "POST", "/kms/keys/rotate", {"key_id": key})
    rewrapped = ok(way, "POST", "/kms/rewrap", sealed)
    assert rewrapped["key_version"] == 2
    sealed["ciphertext_blob"] = rewrapped["ciphertext_blob"]
    assert ok(way, "POST", "/kms/decrypt", sealed)["plaintext"] == generated["plaintext_key"]
    text = base64.b64encode("héllo".encode()).decode()
    encrypted = ok(way, "POST", "/kms/encrypt", {"key_id": key, "plaintext": text})
    opened = ok(way, "POST", "/kms/decrypt", {"ciphertext_blob": encrypted["ciphertext_blob"]})
    assert opened == {"key_id": key, "plaintext": text, "key_version": 2}
    held("data keys are made, opened, moved", way)

    ok(way, "POST", "/kms/keys/tag", {"key_id": key, "tags": {"env": "dev"}})
    ok(way, "POST", "/kms/keys/untag", {"key_id": key, "tag_keys": ["owner"]})
    changed = ok(way, "POST", "/kms/keys/update-description", {"key_id": key, "description": "new"})
    assert changed["key_metadata"]["tags"] == {"name": key, "env": "dev"}
    assert changed["key_metadata"]["description"] == "new"
    ok(way, "POST", "/kms/keys/disable?keyId=" + key)
    refused(way, "POST", "/kms/decrypt", sealed, 409, "InvalidKeyState")
    ok(way, "POST", "/kms/keys/enable?keyId=" + key)
    deleted = ok(way, "DELETE", "/kms/keys/delete?keyId=" + key + "&pending_window_in_days=9")
    assert deleted["key_metadata"]["key_state"] == "PendingDeletion"
    spared = ok(way, "POST", "/kms/keys/cancel-deletion?keyId=" + key, {})
    assert spared["key_metadata"]["key_state"] == "Enabled"
    held("a key is changed, disabled, enabled, deleted and spared", way)


def odd(way):
    """Text that a signer and a verifier may encode differently."""
    for prefix in ["a b", "a+b", "ü-日本", "a%b", "a&b=c", "a/b?c", "~'()*!", "\U0001f511"]:
        for encoded in [urllib.parse.quote(prefix, safe=""), urllib.parse.quote_plus(prefix)]:
            if "query" in way[0] and "+" in encoded:
                # botocore itself reads a plus as a blank when it puts the signature into the query.
                continue
            listed = ok(way, "GET", "/kms/keys?limit=1&prefix=" + encoded)
            assert listed["keys"] == [] and listed["truncated"] is False, (prefix, listed)
    for query in ["prefix=&marker=", "limit=5&prefix=life-", "prefix=life-&limit=5", "prefix=life%2D"]:
        ok(way, "GET", "/kms/keys?" + query)
    repeated = "/kms/keys?limit=1&limit=2"
    if "query" not in way[0]:
        # The signature is good; the request is refused for its content.
        refused(way, "GET", repeated, None, 400, "InvalidRequest")
    held("odd queries are verified", way)

    key = "odd.Key_1-x"
    send(way, "POST", "/kms/keys", {"key_id": key})
    # Percent-encoded without need; decoded once.
    encoded = "".join("%%%02X" % byte for byte in key.encode())
    assert ok(way, "GET", "/kms/keys/" + encoded)["key_metadata"]["key_id"] == key
    for bad in ["%2525", "a%20b", "%C3%BC", "a%2Fb", "a:b", "a%3Fb", "%2E%2E"]:
        refused(way, "GET", "/kms/keys/" + bad, None, 400, "InvalidRequest")
    held("odd path ids are verified, and then judged", way)


def as_it_stands(way):
    """Queries that botocore signs unchanged, or normalises when it presigns."""
    pieces = ["limit=5", "prefix=", "marker=/", "&", "=", "*", ":", "@(a)", "a", "%2A", "%C3%BC", "'!$,;", "?", "~", "-._"]
    generator = random.Random(20260304)
    queries = ["limit=5&", "&limit=5", "&=&", "=", "prefix=a:b/c@d*(e)&limit=5", "a-b=1&a=2"]
    queries += ["".join(generator.choices(pieces, k=generator.randint(1, 9))) for _ in range(200)]
    for query in queries:
        answer = send(way, "GET", "/kms/keys?" + query)
        # The route judges the pairs, and refuses some of them.
        assert answer.status_code in (200, 400), (way, query, answer.status_code, answer.text)
        assert answer.status_code == 200 or answer.json()["code"] == "InvalidRequest", (way, query, answer.text)
    held("queries are verified as they stand", way)


def tampered(way):
    """The signature covers method, path, query, headers and body."""
    form, service = way
    body = b"" if form.startswith("query") else b"{}"
    request = AWSRequest(method="POST", url=BASE + "/kms/keys?keyName=signed", data=body)
    SIGNERS[form](service).add_auth(request)
    prepared = request.prepare()
    headers = dict(prepared.headers)

    def sent(method="POST", url=prepared.url, data=body, headers=headers):
        return requests.request(method, url, data=data, headers=headers).status_code

    assert sent(method="PUT") == 405
    assert sent(url=prepared.url.replace("signed", "forged")) == 401
    if body:
        assert sent(data=b'{"Description":"x"}') in (400, 401)
        assert sent(headers={**headers, "X-Amz-Date": "20200101T000000Z"}) == 401
    assert send(way, "GET", "/kms/keys/forged").status_code == 404
    assert sent() == (200 if way == WAYS[0] else 409)
    if CREDENTIALS.token:
        token, CREDENTIALS.token = CREDENTIALS.token, None
        try:
            refused(way, "GET", "/kms/keys", None, 401, "AccessDenied")
        finally:
            CREDENTIALS.token = token
    held("what was not signed so is refused", way)


for way in WAYS:
    life(way)
    odd(way)
    as_it_stands(way)
    tampered(way)
