"""AWS KMS's API by boto3. botocore's model says what each answer must hold.

Usage: kms_client.py ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, at a server without keys.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import base64
import datetime
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.validate import ParamValidator

ENDPOINT = sys.argv[1]
kms = boto3.client(
    "kms",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
)
MODEL = kms.meta.service_model


def held(check, **facts):
    print(json.dumps({"check": check, **facts}), flush=True)


def unmodelled(path, value, shape):
    """What of a body is not as its shape in the model says: other members, wrong types, unknown words."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        found = [f"{path}.{name} is not in the model" for name in value.keys() - shape.members.keys()]
        found += [f"{path}.{name} is missing" for name in set(shape.required_members) - value.keys()]
        known = value.keys() & shape.members.keys()
        return found + [text for name in known for text in unmodelled(f"{path}.{name}", value[name], shape.members[name])]
    if kind == "list":
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [text for number, item in enumerate(value) for text in unmodelled(f"{path}[{number}]", item, shape.member)]
    if kind == "blob":
        return [] if base64.b64encode(base64.b64decode(value, validate=True)).decode() == value else [f"{path} is no base64"]
    right = {"string": str, "boolean": bool, "integer": int, "timestamp": (int, float)}[kind]
    if not isinstance(value, right) or (kind in ("integer", "timestamp") and isinstance(value, bool)):
        return [f"{path} is {value!r}, not {kind}"]
    if kind == "string" and shape.enum and value not in shape.enum:
        return [f"{path} is {value!r}, not one of {shape.enum}"]
    return []


def checked(http_response, parsed, model, **_):
    """Checks every answer of this client before the caller gets it."""
    if http_response.status_code >= 300:
        body = json.loads(http_response.content)
        assert body.keys() <= {"__type", "message"} and body["__type"], body
        return
    if model.output_shape is None:
        assert http_response.content == b"", (model.name, http_response.content)
        return
    body = json.loads(http_response.content)
    wrong = unmodelled(model.name, body, model.output_shape)
    assert not wrong, wrong
    answer = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    report = ParamValidator().validate(answer, model.output_shape)
    assert not report.has_errors(), report.generate_report()
    # The parser finds everything that the body has.
    assert answer.keys() == body.keys(), (answer.keys(), body.keys())


kms.meta.events.register("after-call.kms", checked)


def code(call, **members):
    try:
        call(**members)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "OK"


def the_life_of_a_key():
    made = kms.create_key(Description="for boto3", Tags=[{"TagKey": "a", "TagValue": "1"}])["KeyMetadata"]
    key = made["KeyId"]
    age = datetime.datetime.now(datetime.timezone.utc) - made["CreationDate"]
    assert abs(age.total_seconds()) < 60, age
    kms.update_key_description(KeyId=key, Description="for tests")
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "b", "TagValue": ""}])
    kms.untag_resource(KeyId=key, TagKeys=["a"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "b", "TagValue": ""}]
    described = kms.describe_key(KeyId=made["Arn"])["KeyMetadata"]
    assert described == {**made, "Description": "for tests"}, described
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    assert policy["Statement"][0]["Action"] == "kms:*", policy
    kms.disable_key(KeyId=key)
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "DisabledException"
    kms.enable_key(KeyId=key)
    due = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["DeletionDate"]
    left = due - datetime.datetime.now(datetime.timezone.utc)
    assert 6.9 < left.total_seconds() / 86400 <= 7, left
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "KMSInvalidStateException"
    assert kms.cancel_key_deletion(KeyId=key)["KeyId"] == made["Arn"]
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    held("a key is made, changed, disabled, enabled, scheduled for deletion and kept")


def data_keys():
    key, other = (kms.create_key()["KeyMetadata"] for _ in range(2))
    context = {"aws:x-amz-cek-alg": "AES/GCM/NoPadding", "ü": "€ 💧", "empty": ""}
    longest = bytes(range(256)) * 16
    blob = kms.encrypt(KeyId=key["Arn"], Plaintext=longest, EncryptionContext=context)["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=dict(reversed(context.items())))
    assert (opened["Plaintext"], opened["KeyId"]) == (longest, key["Arn"])
    moved = kms.re_encrypt(
        CiphertextBlob=blob,
        SourceEncryptionContext=context,
        DestinationKeyId=other["KeyId"],
        DestinationEncryptionContext={"to": "other"},
    )
    kms.rotate_key_on_demand(KeyId=other["KeyId"])
    opened = kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"to": "other"}, KeyId=other["Arn"])
    assert opened["Plaintext"] == longest
    for size in ({"KeySpec": "AES_256"}, {"KeySpec": "AES_128"}, {"NumberOfBytes": 1}, {"NumberOfBytes": 1024}):
        made = kms.generate_data_key(KeyId=key["KeyId"], **size)
        assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
        bare = kms.generate_data_key_without_plaintext(KeyId=key["KeyId"], **size)
        assert len(kms.decrypt(CiphertextBlob=bare["CiphertextBlob"])["Plaintext"]) == len(made["Plaintext"])
    assert len(set(kms.generate_random(NumberOfBytes=32)["Plaintext"] for _ in range(8))) == 8
    held("data keys of every size open, and move to another key")


def pages():
    """Every list by botocore's own paginators, in pages of one."""
    key = kms.create_key(Tags=[{"TagKey": f"t{number}", "TagValue": ""} for number in range(3)])["KeyMetadata"]["KeyId"]
    found = {}
    for operation, members, least in (
        ("list_keys", {}, 4),
        ("list_resource_tags", {"KeyId": key}, 3),
        ("list_key_policies", {"KeyId": key}, 1),
        ("list_aliases", {}, 2),
        ("list_key_rotations", {"KeyId": key}, 2),
    ):
        if operation == "list_aliases":
            made = [code(kms.create_alias, AliasName=f"alias/page-{number}", TargetKeyId=key) for number in range(2)]
            if "UnsupportedOperationException" in made:
                continue
        if operation == "list_key_rotations":
            if code(kms.list_key_rotations, KeyId=key) == "UnsupportedOperationException":
                continue
            for _ in range(2):
                kms.rotate_key_on_demand(KeyId=key)
        paginator = kms.get_paginator(operation)
        (result,) = (expression.expression for expression in paginator.result_keys)
        number, items = 0, []
        for page in paginator.paginate(**members, PaginationConfig={"PageSize": 1}):
            number += 1
            assert len(page[result]) <= 1 and page["Truncated"] == ("NextMarker" in page), page
            items += map(json.dumps, map(str, page[result]))
        assert len(items) >= least and len(set(items)) == len(items), (operation, items)
        assert number >= least, (operation, number)
        found[operation] = number
    held("botocore's paginators list everything once", pages=found)


def members_of(value, path=""):
    """The members of a structure at every depth, by path."""
    if isinstance(value, dict):
        inner = (members_of(item, f"{path}{name}.") for name, item in value.items())
        return {f"{path}{name}" for name in value}.union(*inner)
    if isinstance(value, list):
        return set().union(*(members_of(item, f"{path}[].") for item in value))
    return set()


def snake(operation):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation).lstrip("_")


class Examples:
    """AWS's examples, asked for at keys of this server."""

    def __init__(self):
        self.key = kms.create_key(Tags=[{"TagKey": "Purpose", "TagValue": "Test"}])["KeyMetadata"]["KeyId"]
        self.blob = kms.encrypt(KeyId=self.key, Plaintext=b"x")["CiphertextBlob"]
        self.mac_key, self.mac = self.key, b"x"
        if code(kms.generate_mac, KeyId=self.key, Message=b"x", MacAlgorithm="HMAC_SHA_384") != "UnsupportedOperationException":
            made = kms.create_key(KeySpec="HMAC_384", KeyUsage="GENERATE_VERIFY_MAC")
            self.mac_key = made["KeyMetadata"]["KeyId"]
            self.mac = kms.generate_mac(KeyId=self.mac_key, Message=b"Hello World", MacAlgorithm="HMAC_SHA_384")["Mac"]

    def before(self, operation):
        """Brings about what the operation needs."""
        if operation == "CancelKeyDeletion":
            kms.schedule_key_deletion(KeyId=self.key)
        if operation in ("ListAliases", "UpdateAlias"):
            code(kms.create_alias, AliasName="alias/ExampleAlias", TargetKeyId=self.key)

    def after(self, operation):
        """Makes the key usable again."""
        if operation == "ScheduleKeyDeletion":
            kms.cancel_key_deletion(KeyId=self.key)
        if operation in ("CancelKeyDeletion", "DisableKey", "ScheduleKeyDeletion"):
            kms.enable_key(KeyId=self.key)

    def is_of_another_kind(self, example):
        """Whether it describes a key that cannot be here, or one that this server has no example of."""
        (described,) = [value for name, value in (example.get("output") or {}).items() if name.endswith("KeyMetadata")] or [{}]
        spec = described.get("KeySpec") or described.get("CustomerMasterKeySpec") or "SYMMETRIC_DEFAULT"
        return spec != "SYMMETRIC_DEFAULT" or described.get("MultiRegion", False)

    def ask(self, operation, example):
        """The answer's members, or the code of an error."""
        members = dict(example.get("input") or {})
        own = {"CiphertextBlob": self.blob, "Mac": self.mac} | dict.fromkeys(("KeyId", "DestinationKeyId", "TargetKeyId"), self.key)
        if operation in ("GenerateMac", "VerifyMac"):
            own["KeyId"] = self.mac_key
        members |= {name: own[name] for name in members.keys() & own.keys()}
        try:
            answer = getattr(kms, snake(operation))(**members)
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, (operation, error)
            return error.response["Error"]["Code"]
        return members_of({name: value for name, value in answer.items() if name != "ResponseMetadata"})


def every_operation():
    of_aws = Loader().load_service_model("kms", "examples-1")["examples"]
    examples, served, unsupported, wrong = Examples(), [], [], []
    for operation in MODEL.operation_names:
        answers = []
        examples.before(operation)
        for example in of_aws.get(operation, [{"input": {"KeyId": examples.key}}]):
            if operation == "DescribeKey" and examples.is_of_another_kind(example):
                continue
            answer = examples.ask(operation, example)
            answers.append(answer)
            if isinstance(answer, set):
                lacking = members_of(example.get("output") or {}) - answer
                wrong += [f"{operation} lacks {sorted(lacking)}"] if lacking else []
        examples.after(operation)
        if any(isinstance(answer, set) for answer in answers):
            served.append(operation)
        elif set(answers) == {"UnsupportedOperationException"}:
            unsupported.append(operation)
        else:
            wrong.append(f"{operation} answers {answers}")
    assert not wrong, wrong
    held("AWS's examples are answered with every member", served=served, unsupported=unsupported)


the_life_of_a_key()
data_keys()
pages()
every_operation()
