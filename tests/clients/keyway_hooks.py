"""Hooks for Schemathesis: they sign its requests, and keep them from doing harm.

Set for it: KEYWAY_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; KEYWAY_FOLDER, a folder that may be written; and
KEYWAY_REPORT, a file that gets what was asked and answered.
"""

import atexit
import base64
import collections
import itertools
import json
import os
import re
import zlib

import requests
import schemathesis
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

URL = os.environ["KEYWAY_URL"]
FOLDER = os.environ["KEYWAY_FOLDER"]
CREDENTIALS = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
SIGNER = S3SigV4Auth(CREDENTIALS, "s3", "us-east-1")
KEY = "app-key"
KEY_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
NAMES_OF_A_KEY = {"key_id", "keyId", "KeyId", "keyName", "key-id", "key", "destination_key_id", "destinationKeyId", "confirm_key_id"}
CIPHERTEXTS = {"ciphertext_blob", "ciphertextBlob", "CiphertextBlob"}
CONTEXTS = {"encryption_context", "encryptionContext", "EncryptionContext"}
CREATIONS = {"/keys", "/create-key", "/key/create"}


class Signed(requests.auth.AuthBase):
    """Signs the exact bytes of a request."""

    def __call__(self, request):
        request.headers.pop("Authorization", None)
        # botocore signs `+` for a blank, and empty pairs, unchanged; AWS's canonical form has neither.
        path, mark, query = request.url.partition("?")
        pairs = [pair for pair in query.replace("+", "%20").split("&") if pair]
        request.url = path + mark + "&".join(pairs)
        body = request.body or b""
        if isinstance(body, str):
            body = body.encode()
        signed = AWSRequest(method=request.method, url=request.url, data=body)
        SIGNER.add_auth(signed)
        request.headers.update(signed.headers.items())
        return request


schemathesis.auth.set_from_requests(Signed())


def call(method, path, body=None):
    answer = requests.request(method, URL + "/rustfs/admin/v3/kms" + path, json=body, auth=Signed(), timeout=30)
    return answer


def restored():
    """Makes sure that the key of the requests exists and is enabled."""
    call("POST", "/keys", {"key_id": KEY})
    call("POST", "/keys/cancel-deletion", {"key_id": KEY})
    call("POST", "/keys/enable", {"key_id": KEY})


restored()
SEALED = call("POST", "/encrypt", {"key_id": KEY, "plaintext": "aGVsbG8="}).json()["ciphertext_blob"]


def often(text):
    """Chooses one of two texts, always the same one for the same text."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 2 == 0


def is_base64(text):
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False


def plain(name):
    """The name of a field, whatever its spelling."""
    return name.lower().replace("_", "")


def promising(name, value, key):
    """Replaces a valid value by one that leads further: this key, a ciphertext that opens, one spelling."""
    if name in CONTEXTS and isinstance(value, dict):
        return {}
    if isinstance(value, dict):
        inner, seen = {}, set()
        for field, each in value.items():
            if plain(field) not in seen:
                inner[field] = promising(field, each, key)
                seen.add(plain(field))
        return inner
    if isinstance(value, list):
        return [promising(name, inner, key) for inner in value]
    if isinstance(value, str) and name in NAMES_OF_A_KEY and KEY_ID.fullmatch(value):
        return key
    if isinstance(value, str) and name in CIPHERTEXTS and is_base64(value):
        return SEALED
    return value


def tamed(name, value):
    """Replaces only values that would reach other machines, or folders outside of the test's own."""
    if isinstance(value, dict):
        return {name: tamed(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [tamed(name, inner) for inner in value]
    if not isinstance(value, str):
        return value
    # A port without a listener.
    if name in {"address", "vault_address"} and value.lower().startswith("http"):
        return "http://127.0.0.1:9"
    if name in {"key_directory", "key_dir", "path"} and value.startswith("/"):
        return FOLDER + "/" + ("a" if often(value) else "b")
    return value


def route(case):
    return case.operation.path.rpartition("/kms")[2]


@schemathesis.hook
def before_call(context, case, kwargs):
    # With this header, a request would be one of AWS KMS's API.
    if case.headers:
        case.headers.pop("X-Amz-Target", None)
    parts = [part for part in (case.query, case.path_parameters) if part]
    # Half of the requests as generated, and half with values that lead further.
    key = None
    if often(repr((case.operation.label, case.body, parts))):
        creates = case.operation.method.upper() == "POST" and route(case) in CREATIONS
        key = f"made-{next(NUMBERS)}" if creates else KEY
    if isinstance(case.body, (dict, list)):
        # A body that must be refused may have its fault in another spelling of a field, which would be dropped.
        if key and not (case.meta and case.meta.generation.mode.is_negative):
            case.body = promising("", case.body, key)
        case.body = tamed("", case.body)
        if isinstance(case.body, dict) and "address" in case.body:
            case.body.setdefault("retry_attempts", 0)
    for parameters in parts:
        if key:
            parameters.update(promising("", dict(parameters), key))
    if route(case) == "/configure":
        call("POST", "/stop")
    if route(case) == "/keys/cancel-deletion":
        call("DELETE", "/keys/delete", {"key_id": KEY})


NUMBERS = itertools.count()
ASKED = collections.Counter()
ANSWERED = collections.defaultdict(collections.Counter)


@schemathesis.hook
def after_call(context, case, response):
    name = case.operation.method.upper() + " " + case.operation.path
    status = response.status_code
    ANSWERED[name][str(status)] += 1
    ASKED["requests"] += 1
    if route(case) in {"/configure", "/stop", "/reconfigure"}:
        call("POST", "/start")
    if status == 200 and route(case) in {"/keys/delete", "/keys/disable", "/key/disable"}:
        restored()
    if route(case) == "/keys/cancel-deletion":
        restored()


@schemathesis.check
def is_there_when_it_should_be(ctx, response, case):
    """Starts the service, so that only a missing Vault can fail a request."""
    if response.status_code == 503:
        assert route(case) in {"/configure", "/reconfigure"}, "the service runs"
        assert response.json()["code"] == "BackendError", "the service is configured"
    if response.status_code == 501:
        assert case.path.startswith("/{bucket}"), "only of S3 something is not served"


@schemathesis.check
def request_is_signed(ctx, response, case):
    assert response.status_code != 401, f"the signature was not taken: {response.request.url}"


def report():
    with open(os.environ["KEYWAY_REPORT"], "w", encoding="utf-8") as file:
        json.dump({"requests": ASKED["requests"], "operations": ANSWERED}, file, indent=1)


atexit.register(report)
