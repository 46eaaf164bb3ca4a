"""Replays what AWS KMS was recorded to answer, with boto3, and compares shape, code and text.

Usage: kms_recordings.py ENDPOINT RECORDINGS DIFFERENCES, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, at a server
whose account is 111111111111, as in the recordings.

The recordings hold answers only. A case here asks what its name says and yields each answer under its name there. A
case that is not here must be left out by a pattern of DIFFERENCES. Each difference must be one of DIFFERENCES, and each
of those must still be found. KEYWAY_WRITE_DIFFERENCES=1 writes those that are found, for a person to give their reasons.

Prints one JSON line for each case.
"""

import datetime
import json
import os
import re
import sys
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, RECORDINGS, DIFFERENCES = sys.argv[1:]
ACCOUNT, REGION, SECOND_REGION = "111111111111", "us-east-1", "us-west-2"
# Requests leave as they are: the server checks them, not botocore.
CONFIG = Config(parameter_validation=False, retries={"total_max_attempts": 1})
SYMMETRIC = "SYMMETRIC_DEFAULT"
MESSAGE = b"some important message"


def client(region=REGION):
    return boto3.client("kms", endpoint_url=ENDPOINT, region_name=region, config=CONFIG)


kms = client()
CASES = {}


def case(*names):
    """Registers a generator of (step, answer) for these cases; a name in brackets gives its arguments."""

    def register(replay):
        for name in names:
            parameters = re.search(r"\[(.*)\]$", name)
            CASES[name] = (replay, parameters.group(1).split("-") if parameters else [])
        return replay

    return register


def answer(call, **members):
    """An answer or an error, as botocore parses it."""
    try:
        return call(**members)
    except ClientError as error:
        return error.response


def create(**members):
    return kms.create_key(**members)["KeyMetadata"]


def tags_of(key_id):
    return sorted(kms.list_resource_tags(KeyId=key_id)["Tags"], key=lambda tag: tag["TagKey"])


def tags(*numbers, value="value{}"):
    return [{"TagKey": f"tag{number}", "TagValue": value.format(number)} for number in numbers]


def arn(key_id, region=REGION):
    return f"arn:aws:kms:{region}:{ACCOUNT}:key/{key_id}"


@case(*(f"test_generate_random_invalid_number_of_bytes[{number}]" for number in ("None", "0", "1025")))
def random_of_a_wrong_size(number):
    members = {} if number == "None" else {"NumberOfBytes": int(number)}
    yield "generate-random-exc", answer(kms.generate_random, **members)


@case(*(f"test_generate_random[{number}]" for number in (12, 44, 91, 1, 1024)))
def random(number):
    yield "result_length", len(kms.generate_random(NumberOfBytes=int(number))["Plaintext"])


@case("test_create_key")
def create_key():
    made = create(Description="test key 123", KeyUsage="ENCRYPT_DECRYPT")
    yield "describe-key", kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"]


@case("test_get_key_in_different_region")
def other_region():
    second = client(SECOND_REGION)
    made = second.create_key(Description="test key 123")["KeyMetadata"]
    yield "describe-key-diff-region-with-id", answer(kms.describe_key, KeyId=made["KeyId"])
    yield "describe-key-diff-region-with-arn", answer(kms.describe_key, KeyId=made["Arn"])
    yield "describe-key-same-specific-region-with-id", answer(second.describe_key, KeyId=made["KeyId"])
    yield "describe-key-same-specific-region-with-arn", answer(second.describe_key, KeyId=made["Arn"])


@case("test_get_key_does_not_exist")
def absent_key():
    absent, multi = str(uuid.uuid4()), f"mrk-{uuid.uuid4().hex}"
    for step, key_id, name in (
        ("describe-nonexistent-key-with-id", absent, "<key-arn>"),
        ("describe-nonexistent-with-arn", arn(absent), "<key-arn>"),
        ("describe-key-with-valid-id-mrk", multi, "<mrk-key-arn>"),
    ):
        yield step, answer(kms.describe_key, KeyId=key_id), {name: arn(key_id.rpartition("/")[2])}


@case("test_get_key_invalid_uuid")
def names_that_are_no_uuid():
    for step, key_id in (
        ("describe-key-with-invalid-uuid", "fake-key-id"),
        ("describe-key-with-invalid-uuid-2", "134f2428cec14b25a1ae9048164dba47"),
        ("describe-key-with-invalid-uuid-mrk", "mrk-fake-key-id"),
    ):
        yield step, answer(kms.describe_key, KeyId=key_id)


@case("test_create_alias")
def alias_without_its_prefix():
    key_id = create()["KeyId"]
    yield "create_alias", answer(kms.create_alias, AliasName="no-prefix", TargetKeyId=key_id)


@case("test_describe_with_alias_arn")
def alias_arn():
    made = create(Description="test - description")
    yield "created-key", made
    name = f"alias/{uuid.uuid4()}"
    kms.create_alias(AliasName=name, TargetKeyId=made["KeyId"])
    yield "describe-key", kms.describe_key(KeyId=f"arn:aws:kms:{REGION}:{ACCOUNT}:{name}")


def hmac_key(spec):
    return create(Description="test key", KeySpec=spec, KeyUsage="GENERATE_VERIFY_MAC")


@case("test_hmac_create_key")
def create_hmac_key():
    made = hmac_key("HMAC_256")
    yield "create-hmac-key", made
    yield "describe-key", kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"]


@case("test_hmac_create_key_invalid_operations")
def wrong_hmac_keys():
    for step, members in (
        ("create-hmac-key-without-key-usage", {"KeySpec": "HMAC_256"}),
        ("create-hmac-key-invalid-spec", {"KeySpec": "HMAC_random", "KeyUsage": "GENERATE_VERIFY_MAC"}),
        ("create-hmac-key-invalid-key-usage", {"KeySpec": "HMAC_256", "KeyUsage": "RANDOM"}),
    ):
        yield step, answer(kms.create_key, **members)


@case(*(f"test_generate_and_verify_mac[HMAC_{bits}-HMAC_SHA_{bits}]" for bits in (224, 256, 384, 512)))
def mac(spec, algorithm):
    key_id = hmac_key(spec)["KeyId"]
    members = {"Message": MESSAGE, "MacAlgorithm": algorithm}
    made = kms.generate_mac(KeyId=key_id, **members)
    yield "generate-mac", made
    yield "verify-mac", kms.verify_mac(KeyId=key_id, Mac=made["Mac"], **members)
    yield "generate-mac-invalid-key-id", answer(kms.generate_mac, KeyId="key_id", **members)
    yield "verify-mac-invalid-key-id", answer(kms.verify_mac, KeyId="key_id", Mac=made["Mac"], **members)


@case("test_invalid_generate_mac[HMAC_224-HMAC_SHA_256]", "test_invalid_generate_mac[HMAC_256-INVALID]")
def mac_of_another_algorithm(spec, algorithm):
    key_id = hmac_key(spec)["KeyId"]
    yield "generate-mac", answer(kms.generate_mac, KeyId=key_id, Message=MESSAGE, MacAlgorithm=algorithm)


@case(
    "test_invalid_verify_mac[HMAC_256-HMAC_SHA_256-some different important message]",
    "test_invalid_verify_mac[HMAC_256-HMAC_SHA_512-some important message]",
    "test_invalid_verify_mac[HMAC_256-INVALID-some important message]",
)
def mac_that_is_wrong(spec, algorithm, message):
    key_id = hmac_key(spec)["KeyId"]
    made = kms.generate_mac(KeyId=key_id, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")
    yield "generate-mac", made
    members = {"Message": message.encode(), "Mac": made["Mac"], "MacAlgorithm": algorithm}
    yield "verify-mac", answer(kms.verify_mac, KeyId=key_id, **members)


@case("test_error_messaging_for_invalid_keys")
def keys_of_another_usage():
    symmetric = create()
    members = {"Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    refused = answer(kms.generate_mac, KeyId=symmetric["KeyId"], **members)
    yield "generate-mac-invalid-key-id", refused, {"<key-arn>": symmetric["Arn"]}
    hmac = hmac_key("HMAC_256")
    blob = kms.encrypt(KeyId=symmetric["KeyId"], Plaintext=MESSAGE)["CiphertextBlob"]
    yield "decrypt-invalid-key-id", answer(kms.decrypt, KeyId=hmac["KeyId"], CiphertextBlob=blob)


@case("test_plaintext_size_for_encrypt")
def long_plaintext():
    refused = answer(kms.encrypt, KeyId=create()["KeyId"], Plaintext=b"x" * 4097)
    yield "invalid-plaintext-size-encrypt", refused


@case("test_generate_data_key")
def data_key():
    yield "generate-data-key-result", kms.generate_data_key(KeyId=create()["KeyId"], KeySpec="AES_256")


@case("test_generate_data_key_without_plaintext")
def data_key_without_plaintext():
    made = kms.generate_data_key_without_plaintext(KeyId=create()["KeyId"], KeySpec="AES_256")
    yield "generate-data-key-without-plaintext", made


@case("test_encrypt_decrypt_encryption_context")
def context():
    key_id, pairs = create()["KeyId"], {"context-key": "context-value"}
    made = kms.encrypt(KeyId=key_id, Plaintext=MESSAGE, EncryptionContext=pairs)
    yield "encrypt_response", made
    blob = made["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=pairs)
    yield "decrypt_response_with_encryption_context", opened
    yield "decrypt_response_without_encryption_context", answer(kms.decrypt, CiphertextBlob=blob)
    broken = answer(kms.decrypt, CiphertextBlob=blob[:-1], EncryptionContext=pairs)
    yield "decrypt_response_with_invalid_ciphertext", broken


@case("test_encryption_context_generate_data_key", "test_encryption_context_generate_data_key_without_plaintext")
def context_of_a_data_key():
    key_id, pairs = create()["KeyId"], {"context-key": "context-value"}
    for generate in (kms.generate_data_key, kms.generate_data_key_without_plaintext):
        blob = generate(KeyId=key_id, KeySpec="AES_256", EncryptionContext=pairs)["CiphertextBlob"]
        assert len(kms.decrypt(CiphertextBlob=blob, EncryptionContext=pairs)["Plaintext"]) == 32
        yield "decrypt-without-encryption-context", answer(kms.decrypt, CiphertextBlob=blob)


@case("test_non_multi_region_keys_should_not_have_multi_region_properties")
def single_region():
    made = create(Description="test non multi region key", MultiRegion=False)
    yield "non_multi_region_keys_should_not_have_multi_region_properties", made


@case("test_tag_existing_key_and_untag")
def tag_and_untag():
    key_id = create()["KeyId"]
    kms.tag_resource(KeyId=key_id, Tags=tags(1, 2))
    yield "list-resource-tags", tags_of(key_id)
    kms.untag_resource(KeyId=key_id, TagKeys=["tag1", "tag2"])
    yield "list-resource-tags-after-all-untagged", tags_of(key_id)


@case("test_create_key_with_tag_and_untag")
def create_with_tags():
    key_id = create(Tags=tags(1, 2))["KeyId"]
    yield "list-resource-tags", tags_of(key_id)
    kms.untag_resource(KeyId=key_id, TagKeys=["tag1", "tag2"])
    yield "list-resource-tags-after-all-untagged", tags_of(key_id)


@case("test_untag_key_partially")
def untag_in_part():
    key_id = create(Tags=tags(1, 2, 3))["KeyId"]
    yield "list-resource-tags", tags_of(key_id)
    kms.untag_resource(KeyId=key_id, TagKeys=["tag2"])
    yield "list-resource-tags-after-partially-untagged", tags_of(key_id)


@case("test_update_and_add_tags_on_tagged_key")
def change_tags():
    key_id = create(Tags=tags(1, 2, 3))["KeyId"]
    yield "list-resource-tags", tags_of(key_id)
    kms.tag_resource(KeyId=key_id, Tags=tags(2, value="updated_value{}") + tags(4, 5))
    yield "list-resource-tags-after-tags-updated", tags_of(key_id)


@case("test_tag_key_with_duplicate_tag_keys_raises_error")
def repeated_tags():
    yield "duplicate-tag-keys", answer(kms.tag_resource, KeyId=create()["KeyId"], Tags=tags(1, 1))


@case("test_create_key_with_too_many_tags_raises_error")
def many_tags():
    yield "invalid-tag-key", answer(kms.create_key, Tags=tags(*range(51)))


def one_tag(key, value="value"):
    return [{"TagKey": key, "TagValue": value}]


@case("test_tag_existing_key_with_invalid_tag_key")
def reserved_tag():
    refused = answer(kms.tag_resource, KeyId=create()["KeyId"], Tags=one_tag("aws:key1"))
    yield "invalid-tag-key", refused


@case("test_key_with_long_tag_value_raises_error")
def long_tag():
    yield "too-long-tag-value", answer(kms.create_key, Tags=one_tag("tag1", "v" * 257))


@case(
    "test_create_key_with_invalid_tag_key[lowercase_prefix]",
    "test_create_key_with_invalid_tag_key[uppercase_prefix]",
    "test_create_key_with_invalid_tag_key[too_long_key]",
)
def create_with_a_wrong_tag(kind):
    key = {"lowercase_prefix": "aws:key1", "uppercase_prefix": "AWS:key1", "too_long_key": "a" * 129}[kind]
    yield "invalid-tag-key", answer(kms.create_key, Tags=one_tag(key))


@case("test_key_enable_rotation_status[90]", "test_key_enable_rotation_status[180]")
def rotation_period(days):
    key_id = create()["KeyId"]
    kms.enable_key_rotation(KeyId=key_id, RotationPeriodInDays=int(days))
    yield "match_response", kms.get_key_rotation_status(KeyId=key_id)


@case("test_rotate_key_on_demand_modifies_key_material")
def rotation_changes_material():
    key_id = create()["KeyId"]
    before = kms.describe_key(KeyId=key_id)["KeyMetadata"]["CurrentKeyMaterialId"]
    yield "rotate-on-demand-response", kms.rotate_key_on_demand(KeyId=key_id)
    assert kms.describe_key(KeyId=key_id)["KeyMetadata"]["CurrentKeyMaterialId"] != before


@case("test_rotate_key_on_demand_with_symmetric_key_and_automatic_rotation_disabled")
def rotation_without_a_period():
    key_id = create()["KeyId"]
    yield "rotate-on-demand-response", kms.rotate_key_on_demand(KeyId=key_id)
    yield "rotation-status-response-after-rotation", kms.get_key_rotation_status(KeyId=key_id)


@case("test_rotate_key_on_demand_with_symmetric_key_and_automatic_rotation_enabled")
def rotation_with_a_period():
    key_id = create()["KeyId"]
    kms.enable_key_rotation(KeyId=key_id)
    yield "rotate-on-demand-response", kms.rotate_key_on_demand(KeyId=key_id)
    yield "rotation-status-response-after-rotation", kms.get_key_rotation_status(KeyId=key_id)


@case("test_rotate_key_on_demand_raises_error_given_key_is_disabled")
def rotation_of_a_disabled_key():
    made = create()
    kms.disable_key(KeyId=made["KeyId"])
    yield "error-response", answer(kms.rotate_key_on_demand, KeyId=made["KeyId"]), {"<key-arn>": made["Arn"]}


@case("test_rotate_key_on_demand_raises_error_given_key_that_does_not_exist")
def rotation_of_no_key():
    absent = str(uuid.uuid4())
    yield "error-response", answer(kms.rotate_key_on_demand, KeyId=absent), {"<key-arn>": arn(absent)}


@case("test_rotate_key_on_demand_raises_error_given_non_symmetric_key")
def rotation_of_another_kind():
    # Recorded with a key pair. A key for MACs is the kind here that AWS does not rotate either.
    yield "error-response", answer(kms.rotate_key_on_demand, KeyId=hmac_key("HMAC_256")["KeyId"])


@case("test_rotate_on_demand_returns_arn_for_key_id")
def rotation_answers_the_arn():
    made = create()
    rotated = kms.rotate_key_on_demand(KeyId=made["KeyId"])
    assert rotated["KeyId"] == made["Arn"]
    yield "rotate-on-demand-aws-key", rotated


@case("test_key_rotation_updates_current_key_material_id_for_aws_symmetric_keys")
def rotation_shows_the_material():
    key_id = create(Description="test-key")["KeyId"]
    yield "describe-key-before-rotation", kms.describe_key(KeyId=key_id)
    kms.rotate_key_on_demand(KeyId=key_id)
    yield "describe-key-after-rotation", kms.describe_key(KeyId=key_id)


@case("test_key_rotations_encryption_decryption")
def rotation_keeps_ciphertexts():
    key_id = create()["KeyId"]
    blobs = []
    for _ in range(3):
        blobs.append(kms.encrypt(KeyId=key_id, Plaintext=MESSAGE)["CiphertextBlob"])
        kms.rotate_key_on_demand(KeyId=key_id)
    assert all(kms.decrypt(CiphertextBlob=blob)["Plaintext"] == MESSAGE for blob in blobs)
    broken = bytearray(blobs[0])
    broken[-1] ^= 1
    yield "bad-ciphertext", answer(kms.decrypt, CiphertextBlob=bytes(broken), KeyId=key_id)


@case("test_key_rotations_limits")
def rotation_limit():
    made = create()
    for _ in range(25):
        kms.rotate_key_on_demand(KeyId=made["KeyId"])
    yield "error-response", answer(kms.rotate_key_on_demand, KeyId=made["KeyId"]), {"<key-arn>": made["Arn"]}


@case("test_re_encrypt[SYMMETRIC_DEFAULT-SYMMETRIC_DEFAULT]")
def reencrypt(source, destination):
    keys = create(KeySpec=source), create(KeySpec=destination)
    blob = kms.encrypt(KeyId=keys[0]["KeyId"], Plaintext=MESSAGE)["CiphertextBlob"]
    moved = kms.re_encrypt(
        CiphertextBlob=blob,
        SourceKeyId=keys[0]["KeyId"],
        DestinationKeyId=keys[1]["KeyId"],
        SourceEncryptionAlgorithm=source,
        DestinationEncryptionAlgorithm=destination,
    )
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"])["Plaintext"] == MESSAGE
    yield "test_re_encrypt", moved, {"<key-arn>": keys[0]["Arn"]}


@case("test_re_encrypt_incorrect_source_key")
def reencrypt_from_another_key():
    keys = create(), create(), create()
    blob = kms.encrypt(KeyId=keys[0]["KeyId"], Plaintext=MESSAGE)["CiphertextBlob"]
    members = {"SourceKeyId": keys[1]["KeyId"], "DestinationKeyId": keys[2]["KeyId"]}
    yield "incorrect-source-key", answer(kms.re_encrypt, CiphertextBlob=blob, **members)


def shown(value):
    """A value in a difference. The members of a structure are what matters, not what they hold."""
    if value is None:
        return "nothing"
    if isinstance(value, dict) and len(value) > 2:
        return "{" + ", ".join(sorted(value)) + "}"
    return json.dumps(value, default=str)


class Comparison:
    """Compares the steps of one case. A placeholder stands for the same value in all of them."""

    ALIKE = {
        "datetime": datetime.datetime,
        "ciphertext-blob": bytes,
        "plaintext": bytes,
        "<mac>": bytes,
    }

    def __init__(self):
        self.names = {"<region>": REGION, "<secondary-region>": SECOND_REGION, "<partition>": "aws"}
        self.found = []

    def step(self, recorded, answered):
        self.found = []
        self.compare("", recorded, answered)
        return self.found

    def differ(self, path, recorded, answered):
        self.found.append(f"{path.lstrip('.')}: recorded {shown(recorded)}, answered {self.named(shown(answered))}")

    def compare(self, path, recorded, answered):
        if isinstance(recorded, dict) and isinstance(answered, dict):
            for name in sorted(recorded.keys() | answered.keys()):
                # The recordings have no headers, and an id for nothing.
                if path == ".ResponseMetadata" and name != "HTTPStatusCode":
                    continue
                self.compare(f"{path}.{name}", recorded.get(name), answered.get(name))
        elif isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
            for number, pair in enumerate(zip(recorded, answered)):
                self.compare(f"{path}[{number}]", *pair)
        elif isinstance(recorded, str) and recorded in self.ALIKE:
            if not isinstance(answered, self.ALIKE[recorded]):
                self.differ(path, recorded, answered)
        elif isinstance(recorded, str) and isinstance(answered, str):
            if not self.matches(recorded, answered):
                self.differ(path, recorded, answered)
        elif recorded != answered or type(recorded) is not type(answered):
            self.differ(path, recorded, answered)

    def matches(self, recorded, answered):
        """Whether the texts are equal, with each placeholder's value, which its first use determines."""
        pattern, fresh = "", []
        for part in re.split(r"(<[a-z:0-9-]+>)", recorded):
            known = self.names.get(part)
            if known is None and re.fullmatch(r"<[a-z:0-9-]+>", part):
                pattern += r"([^ ']+?)"
                fresh.append(part)
            else:
                pattern += re.escape(known or part)
        found = re.fullmatch(pattern, answered, re.DOTALL)
        if found:
            self.names.update(zip(fresh, found.groups()))
        return found is not None

    def named(self, text):
        for name, value in sorted(self.names.items(), key=lambda pair: -len(pair[1])):
            text = text.replace(value, name) if len(value) > 8 else text
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)
        return re.sub(r"[0-9a-f]{64}", "<64 digits>", text)


def differences(name, recorded):
    """The differences of a case by step. `*` is the step for what ends the case early."""
    replay, arguments = CASES[name]
    comparison, found, done = Comparison(), {}, set()
    try:
        for step, answered, *own in replay(*arguments):
            # The names of one step stand for other values in the next one.
            of_case = dict(comparison.names)
            comparison.names.update(*own)
            lines = comparison.step(recorded[step], answered)
            done.add(step)
            for names in own:
                comparison.names = of_case | {key: text for key, text in comparison.names.items() if key not in names}
            if lines:
                found[step] = lines
    except ClientError as error:
        text = comparison.named(str(error.response["Error"]["Message"]))
        found["*"] = [f"{error.operation_name}: {error.response['Error']['Code']}: {text}"]
    return found, done


def main():
    recordings = {name.rpartition("::")[2]: case for name, case in json.load(open(RECORDINGS)).items()}
    listed = json.load(open(DIFFERENCES))
    wrong = [f"{name} is no recorded case" for name in CASES.keys() - recordings.keys()]
    known = {(entry["case"], entry["step"]): entry for entry in listed["differences"]}
    missing = {(entry["case"], entry["step"]): entry for entry in listed["steps_left_out"]}
    patterns, unused = [entry["cases"] for entry in listed["cases_left_out"]], dict(missing)
    written = []
    for name, case in recordings.items():
        matching = [pattern for pattern in patterns if re.fullmatch(pattern, name)]
        if name not in CASES:
            if len(matching) != 1:
                wrong.append(f"{name} is neither replayed nor left out once: {matching}")
            continue
        if matching:
            wrong.append(f"{name} is replayed and left out: {matching}")
        found, done = differences(name, case["recorded-content"])
        for step in case["recorded-content"].keys() - done:
            if unused.pop((name, step), None) is None and "*" not in found:
                wrong.append(f"{name} {step} is not replayed")
        for step, lines in found.items():
            entry = known.pop((name, step), None)
            why = entry["why"] if entry else "TODO"
            written.append({"case": name, "step": step, "differs": lines, "why": why})
            if entry is None or entry["differs"] != lines:
                wrong.append(f"{name} {step} differs: {json.dumps(lines, indent=2)}")
        print(json.dumps({"case": name, "steps": len(done), "differ": len(found)}), flush=True)
    used = {pattern for pattern in patterns for name in recordings if re.fullmatch(pattern, name)}
    wrong += [f"no case is left out by {pattern}" for pattern in patterns if pattern not in used]
    wrong += [f"{name} {step} differs no longer" for name, step in known]
    if os.environ.get("KEYWAY_WRITE_DIFFERENCES"):
        listed["differences"] = written
        with open(DIFFERENCES, "w") as file:
            file.write(json.dumps(listed, indent=2) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


main()
