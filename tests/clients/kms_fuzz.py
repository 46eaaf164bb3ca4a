"""Bodies that Hypothesis makes from AWS's model of KMS, right and wrong ones, for every operation.

Usage: kms_fuzz.py ENDPOINT EXAMPLES, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. EXAMPLES is the number of
bodies for each operation.
Each answer must be a 200 that the model describes, or a 400 with one of AWS's codes.
Prints one JSON line; ends with another code than 0 if an answer was another one.
"""

import base64
import collections
import json
import os
import sys

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ENDPOINT, EXAMPLES = sys.argv[1], int(sys.argv[2])
CREDENTIALS = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
SIGNER = SigV4Auth(CREDENTIALS, "kms", "us-east-1")
POOL = urllib3.PoolManager(retries=False)
kms = boto3.client("kms", endpoint_url=ENDPOINT, region_name="us-east-1")
MODEL = kms.meta.service_model
MODELLED = {shape for shape in MODEL.shape_names if MODEL.shape_for(shape).metadata.get("exception")}
COMMON = {
    "AccessDeniedException",
    "NotAuthorizedException",
    "RequestEntityTooLargeException",
    "SerializationException",
    "UnknownOperationException",
    "ValidationException",
}
KEY, OTHER = (kms.create_key(Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"] for _ in range(2))
MAC_KEY = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]
SEALED = kms.encrypt(KeyId=KEY["KeyId"], Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
answers = collections.Counter()


def send(target, body):
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    request = AWSRequest("POST", ENDPOINT + "/", data=body, headers=headers)
    SIGNER.add_auth(request)
    return POOL.request("POST", ENDPOINT + "/", body=body, headers=dict(request.headers.items()), timeout=30)


def check(target, body, operation=None):
    """Sends a body, and checks the answer; returns its code, or None."""
    answer = send(target, body)
    kind, held = answer.headers.get("Content-Type"), answer.data
    shown = (target, body[:300], answer.status, held[:300])
    assert kind == "application/x-amz-json-1.1" and answer.headers.get("x-amzn-RequestId"), shown
    if answer.status == 200:
        assert operation is not None, shown
        if operation.output_shape is None:
            assert held == b"", shown
        else:
            assert json.loads(held).keys() <= operation.output_shape.members.keys(), shown
        code = None
    else:
        error = json.loads(held)
        code = error["__type"]
        assert answer.status == 400 and code in MODELLED | COMMON, shown
        assert error.keys() <= {"__type", "message"} and len(held) < 20_000, shown
    answers[code or "OK"] += 1
    return code


def often(right, wrong):
    """Mostly a right value."""
    return st.integers(0, 19).flatmap(lambda number: wrong if number == 19 else right)


TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEYS = often(
    st.sampled_from([KEY["KeyId"], KEY["Arn"], OTHER["KeyId"], MAC_KEY["KeyId"]]),
    st.sampled_from(["absent", "alias/none", "arn:aws:kms:us-east-1:000000000000:alias/a"]),
)
CONTEXT = st.just({"a": "b"}) | st.dictionaries(TEXT, TEXT, max_size=5)


def of_string(name, shape):
    longest = min(shape.metadata.get("max", 40), 9000)
    near = st.sampled_from([0, 1, longest, longest + 1]).map(lambda length: "a" * length)
    if shape.enum:
        return often(st.sampled_from(shape.enum), TEXT)
    if name.endswith("KeyId"):
        return often(KEYS, TEXT | near)
    if name == "AliasName":
        return often(st.sampled_from(["alias/a", "alias/b"]), TEXT | near)
    if name == "Policy":
        return st.sampled_from(["{}", '{"Version":"2012-10-17","Statement":[]}', "[", kms.get_key_policy(KeyId=KEY["KeyId"])["Policy"]])
    return often(TEXT, near)


def of(name, shape, depth=0):
    """Values for a shape of the model."""
    kind = shape.type_name
    if kind == "structure":
        return of_structure(shape, depth)
    if kind == "list":
        items = of(name, shape.member, depth + 1)
        return often(st.lists(items, max_size=4), items.map(lambda item: [item] * 60))
    if kind == "map":
        return often(CONTEXT, JSON)
    if kind == "string":
        right = of_string(name, shape)
    elif kind == "blob":
        sealed = st.just(base64.b64encode(SEALED).decode())
        data = st.binary(max_size=64).map(lambda data: base64.b64encode(data).decode())
        right = often(sealed if name == "CiphertextBlob" else data, data | st.just("A" * 8800) | TEXT)
    elif kind in ("integer", "long"):
        right = st.integers(shape.metadata.get("min", 0) - 1, shape.metadata.get("max", 10**6) + 1)
    elif kind == "boolean":
        right = st.booleans()
    else:
        right = st.integers(0, 2**40)
    return often(right, JSON)


def of_structure(shape, depth=0):
    required = {name: of(name, member, depth) for name, member in shape.members.items() if name in shape.required_members}
    optional = {name: of(name, member, depth) for name, member in shape.members.items() if name not in shape.required_members}
    right = st.fixed_dictionaries(required, optional=optional)
    return often(right, st.dictionaries(TEXT, JSON, max_size=3) | st.fixed_dictionaries({}, optional=required | optional))


def bodies(operation):
    """Bodies as bytes: JSON of the model's input, and what no client sends."""
    members = of_structure(operation.input_shape) if operation.input_shape else st.just({})
    right = members.map(lambda value: json.dumps(value).encode())
    twice = members.map(lambda value: (json.dumps(value)[:-1] + ',"KeyId":"a","KeyId":"b"}').encode())
    cut = right.map(lambda body: body[: len(body) // 2])
    strange = st.sampled_from([b"", b" ", b"null", b"[]", b"[[", b"{" * 300, b"\xef\xbb\xbf{}", b'{"KeyId":"\xff"}', b'"' + b"a" * 300_000, b"1e999"])
    return often(right, twice | cut | strange | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))


def limits(examples):
    """A short run makes the same bodies each time; a long one looks for others."""
    same = EXAMPLES < 1000
    return settings(max_examples=examples, derandomize=same, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def restored():
    """Makes the keys usable again."""
    for key in (KEY, OTHER, MAC_KEY):
        state = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
        if state == "PendingDeletion":
            kms.cancel_key_deletion(KeyId=key["KeyId"])
        if state != "Enabled":
            kms.enable_key(KeyId=key["KeyId"])


def operations():
    succeeded = set()
    for name in MODEL.operation_names:
        operation = MODEL.operation_model(name)
        is_served = check(f"TrentService.{name}", b"{}", operation) != "UnsupportedOperationException"

        @limits(EXAMPLES if is_served else 3)
        @given(bodies(operation))
        def every_body_is_answered(body):
            if check(f"TrentService.{name}", body, operation) is None:
                succeeded.add(name)

        every_body_is_answered()
        restored()
    return sorted(succeeded)


@limits(EXAMPLES)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80), st.booleans())
def every_target_is_answered(text, ours):
    text = text.strip()
    name = f"TrentService.{text}" if ours else text
    if text not in MODEL.operation_names:
        code = check(name, b"{}")
        assert code == "UnknownOperationException", (name, code)


succeeded = operations()
every_target_is_answered()
print(json.dumps({"answers": dict(answers.most_common()), "succeeded": succeeded}))
