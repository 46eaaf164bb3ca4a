#!/usr/bin/env python3
"""Makes signed-records.json: a root keyring, and records as a table stores them. Shares no code with Rust.

    python3 vectors/make_record_vectors.py > vectors/signed-records.json
"""

import base64
import hashlib
import hmac
import json

DEPLOYMENT = "0f0e0d0c-0b0a-4908-8706-050403020100"
ROOTS = {"r1": bytes(range(32)), "r2": bytes(range(100, 132))}


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def signed(root, kind, identifier, revision, content):
    """The value of a record, as SECURITY.md describes it."""
    key = mac(ROOTS[root], b"keyway/v1/record-key\0" + kind.encode())
    message = b"keyway/v1/record\0"
    for text in (DEPLOYMENT, kind, identifier):
        message += len(text.encode()).to_bytes(4, "big") + text.encode()
    tag = mac(key, message + revision + content)
    line = b"KW1 " + root.encode() + b" " + base64.urlsafe_b64encode(tag).rstrip(b"=")
    return line + b"\n" + content


def vectors():
    for n, (root, kind, identifier) in enumerate(
        [
            ("r2", "key", "reports"),
            ("r2", "access-key", "KWAAAAAAAAAAAAAAAAAA"),
            ("r1", "config", "service"),
            ("r2", "bucket", "photos"),
            ("r2", "policy", "minio"),
            ("r1", "identity", "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22"),
            ("r2", "alias", "alias/app/photos"),
        ]
    ):
        revision = bytes([n]) * 16
        content = json.dumps({"format": 1, "text": f"äöü {n}"}, ensure_ascii=False).encode()
        yield {
            "kind": kind,
            "id": identifier,
            "revision": revision.hex(),
            "content": content.hex(),
            "value": signed(root, kind, identifier, revision, content).hex(),
        }


keyring = {
    "format": 1,
    "deployment": DEPLOYMENT,
    "roots": [
        {"id": name, "created_at": "2026-01-02T03:04:05Z", "key": base64.b64encode(key).decode()}
        for name, key in ROOTS.items()
    ],
    "signed": True,
}
print(json.dumps({"keyring": keyring, "records": list(vectors())}, indent=1))
