"""Buckets and their default encryption by boto3, and by the AWS CLI beside it.

Usage: s3_client.py ENDPOINT BUCKET KEY, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN set.
BUCKET is not there yet, KEY is an enabled key of the KMS. Prints one JSON line for each check that held; ends with
another code than 0 at the first that did not.
"""

import json
import os
import subprocess
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, BUCKET, KEY = sys.argv[1:]
# A current object store encrypts buckets without a setting; buckets of the table do not.
ALWAYS_ENCRYPTS = bool(os.environ.get("KEYWAY_TEST_ALWAYS_ENCRYPTS"))
S3 = boto3.client(
    "s3",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
)


def held(check):
    print(json.dumps({"check": check}), flush=True)


def refused(status, code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
        assert found == (status, code), (found, error)
        assert error.response["ResponseMetadata"]["RequestId"]
        return
    raise AssertionError(f"{code} was due")


def rules(algorithm, key=None, bucket_key=False):
    default = {"SSEAlgorithm": algorithm, **({"KMSMasterKeyID": key} if key else {})}
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bucket_key}
    return {"Rules": [rule]}


def encryption(bucket):
    return S3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]


def has_none(bucket):
    try:
        found = encryption(bucket)["Rules"]
    except ClientError:
        refused(404, "ServerSideEncryptionConfigurationNotFoundError", S3.get_bucket_encryption, Bucket=bucket)
    else:
        default = found[0]["ApplyServerSideEncryptionByDefault"]
        assert ALWAYS_ENCRYPTS and default == {"SSEAlgorithm": "AES256"}, found


def boto():
    refused(404, "404", S3.head_bucket, Bucket=BUCKET)
    for call, more in [
        (S3.get_bucket_encryption, {}),
        (S3.delete_bucket_encryption, {}),
        (S3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": rules("AES256")}),
    ]:
        refused(404, "NoSuchBucket", call, Bucket=BUCKET, **more)
    made = S3.create_bucket(Bucket=BUCKET)
    assert made["Location"].endswith("/" + BUCKET), made
    refused(409, "BucketAlreadyOwnedByYou", S3.create_bucket, Bucket=BUCKET)
    S3.head_bucket(Bucket=BUCKET)
    listed = S3.list_buckets()["Buckets"]
    assert [bucket["CreationDate"].year > 2000 for bucket in listed if bucket["Name"] == BUCKET] == [True], listed
    held("a bucket is made and found")

    has_none(BUCKET)
    for wanted in [rules("aws:kms", KEY, True), rules("AES256"), rules("aws:kms", KEY)]:
        S3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=wanted)
        assert encryption(BUCKET) == wanted, encryption(BUCKET)
    arn = rules("aws:kms", "arn:aws:kms:us-east-1:123456789012:key/" + KEY)
    S3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=arn)
    assert encryption(BUCKET) == arn, encryption(BUCKET)
    S3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules("aws:kms", KEY))
    held("encryption is set and read")

    put = S3.put_bucket_encryption
    for wanted, code in [
        (rules("aws:kms", "no-such-key"), "KMS.NotFoundException"),
        (rules("AES256", KEY), "InvalidArgument"),
        (rules("rot13"), "MalformedXML"),
        ({"Rules": rules("AES256")["Rules"] * 2}, "MalformedXML"),
    ]:
        refused(400, code, put, Bucket=BUCKET, ServerSideEncryptionConfiguration=wanted)
    assert encryption(BUCKET) == rules("aws:kms", KEY)
    refused(501, "NotImplemented", S3.get_bucket_versioning, Bucket=BUCKET)
    refused(501, "NotImplemented", S3.list_objects_v2, Bucket=BUCKET)
    refused(501, "NotImplemented", S3.get_object, Bucket=BUCKET, Key="a/b.txt")
    refused(501, "NotImplemented", S3.put_object, Bucket=BUCKET, Key="b.txt", Body=b"b")
    assert S3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    other = BUCKET + "-other"
    S3.create_bucket(Bucket=other)
    S3.delete_bucket(Bucket=other)
    refused(404, "NoSuchBucket", S3.delete_bucket, Bucket=other)
    refused(404, "NoSuchBucket", S3.get_bucket_location, Bucket=other)
    held("what is wrong is refused and changes nothing")

    for _ in range(2):
        S3.delete_bucket_encryption(Bucket=BUCKET)
        has_none(BUCKET)
    wrong = boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="wrong",
        aws_session_token=os.environ.get("AWS_SESSION_TOKEN"),
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    refused(403, "SignatureDoesNotMatch", wrong.list_buckets)
    nobody = boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        region_name="eu-west-1",
        aws_access_key_id="nobody-here",
        aws_secret_access_key="wrong",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    refused(403, "InvalidAccessKeyId", nobody.list_buckets)
    held("strangers are told what is wrong with them")


def cli(operation, *arguments):
    program = os.path.join(os.path.dirname(sys.executable), "aws")
    command = [program, "--endpoint-url", ENDPOINT, "--region", "us-east-1", "--output", "json", "s3api", operation]
    done = subprocess.run(command + list(arguments), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def cli_ok(operation, *arguments):
    code, out, error = cli(operation, *arguments)
    assert code == 0, (operation, error)
    return json.loads(out) if out.strip() else None


def by_cli():
    bucket = ["--bucket", BUCKET + "-cli"]
    cli_ok("create-bucket", *bucket)
    cli_ok("head-bucket", *bucket)
    names = [entry["Name"] for entry in cli_ok("list-buckets")["Buckets"]]
    assert BUCKET in names and BUCKET + "-cli" in names and names == sorted(names), names
    wanted = rules("aws:kms", KEY)
    cli_ok("put-bucket-encryption", *bucket, "--server-side-encryption-configuration", json.dumps(wanted))
    assert cli_ok("get-bucket-encryption", *bucket)["ServerSideEncryptionConfiguration"] == wanted
    code, _, error = cli("put-bucket-encryption", *bucket, "--server-side-encryption-configuration",
                         json.dumps(rules("aws:kms", "no-such-key")))
    assert code != 0 and "KMS.NotFoundException" in error, error
    cli_ok("delete-bucket-encryption", *bucket)
    has_none(BUCKET + "-cli")
    code, _, error = cli("head-bucket", "--bucket", BUCKET + "-absent")
    assert code != 0 and "404" in error, error
    held("the AWS CLI does the same")


boto()
by_cli()
# The test that runs this script checks which buckets the key's deletion names.
S3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules("aws:kms", KEY))
held("the bucket uses the key")
