"""What Schemathesis is told of KES's API: names that exist, ciphertexts that open, and what must not come of a request.

Set for it: KES_URL, KES_CERT and KES_KEY, the files of the admin's certificate; and KEYWAY_REPORT, a file that gets what was
asked and answered.
"""

import atexit
import collections
import json
import os
import re
import zlib

import requests
import schemathesis
import urllib3
from schemathesis.core import NotSet

# The server's certificate is one that it made for itself.
urllib3.disable_warnings()
URL = os.environ["KES_URL"]
CERTIFICATE = (os.environ["KES_CERT"], os.environ["KES_KEY"])
NAME = re.compile(r"(?!_$)\w(?:[\w-]{0,78}\w)?", re.ASCII)
NAMES = {"key": "app-key", "policy": "app-policy", "identity": "a" * 64}


def call(method, path, body=None):
    return requests.request(method, URL + path, json=body, cert=CERTIFICATE, verify=False, timeout=30)


def restored():
    """The names that requests are about exist."""
    call("POST", "/v1/key/create/app-key")
    call("POST", "/v1/policy/write/app-policy", {"allow": {"/v1/key/generate/app-*": {}}})
    call("POST", "/v1/policy/assign/app-policy", {"identity": NAMES["identity"]})


restored()
SEALED = call("POST", "/v1/key/encrypt/app-key", {"plaintext": "aGVsbG8="}).json()["ciphertext"]


def often(text):
    """Of two texts one, and of the same text always the same."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 2 == 0


def promising(body):
    """The body, such that more can come of it."""
    if isinstance(body, list):
        return [promising(item) for item in body[:10]]
    if not isinstance(body, dict):
        return body
    body = {name: value for name, value in body.items() if name != "context"}
    if "ciphertext" in body:
        body["ciphertext"] = SEALED
    if "identity" in body:
        body["identity"] = NAMES["identity"]
    return body


@schemathesis.hook
def filter_case(context, case):
    # A body may be `null`, and that of a data key may be left out: Schemathesis expects a refusal of some of these.
    may_be_absent = case.operation.path.startswith("/v1/key/generate/")
    return case.body is not None and not (may_be_absent and isinstance(case.body, NotSet))


@schemathesis.hook
def before_call(context, case, kwargs):
    # Half of the requests as they were made up, and half such that more can come of them.
    if not often(repr((case.operation.label, case.body, case.path_parameters))):
        return
    creates = case.operation.path.startswith(("/v1/key/create/", "/v1/key/import/"))
    for name, value in (case.path_parameters or {}).items():
        if name in NAMES and not creates and NAME.fullmatch(str(value)):
            case.path_parameters[name] = NAMES[name]
    case.body = promising(case.body)


ASKED = collections.Counter()
ANSWERED = collections.defaultdict(collections.Counter)


@schemathesis.hook
def after_call(context, case, response):
    name = case.operation.method.upper() + " " + case.operation.path
    ANSWERED[name][str(response.status_code)] += 1
    ASKED["requests"] += 1
    if response.status_code == 200 and any(word in name for word in ("/delete/", "/forget/", "/write/")):
        restored()


@schemathesis.check
def is_there_when_it_should_be(ctx, response, case):
    assert response.status_code not in {501, 502, 503, 504}, "the service runs, and all of this is served"


@schemathesis.check
def request_is_signed(ctx, response, case):
    assert "certificate is required" not in response.text, "the certificate was not sent"


def report():
    with open(os.environ["KEYWAY_REPORT"], "w", encoding="utf-8") as file:
        json.dump({"requests": ASKED["requests"], "operations": ANSWERED}, file, indent=1)


atexit.register(report)
