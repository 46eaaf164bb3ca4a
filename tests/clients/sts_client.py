"""Temporary credentials by boto3, the AWS CLI and minio-py.

Usage: sts_client.py ENDPOINT KEY, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, of an access key that may describe
and list keys and make data keys. KEY is an enabled key of the KMS. Prints one JSON line for each check that held; ends with
another code than 0 at the first that did not.
"""

import datetime
import json
import os
import subprocess
import sys

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from minio import Minio
from minio.credentials import AssumeRoleProvider

ENDPOINT, KEY = sys.argv[1:]
ACCESS, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
ROLE = "arn:aws:iam::000000000000:role/any"
ASSUMED = f"arn:aws:sts::000000000000:assumed-role/{ACCESS}"


def held(check):
    print(json.dumps({"check": check}), flush=True)


def call(credentials, method, path, body=""):
    """The status of a call to RustFS's API."""
    keys = [credentials[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    request = AWSRequest(method, f"{ENDPOINT}/rustfs/admin/v3/kms{path}", data=body)
    SigV4Auth(Credentials(*keys), "execute-api", "us-east-1").add_auth(request)
    return URLLib3Session().send(request.prepare()).status_code


def generates(credentials):
    return call(credentials, "POST", "/generate-data-key", json.dumps({"key_id": KEY}))


def by_boto3():
    sts = boto3.client("sts", endpoint_url=ENDPOINT, region_name="us-east-1")
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::000000000000:user/{ACCESS}"
    answer = sts.assume_role(RoleArn=ROLE, RoleSessionName="nightly", DurationSeconds=900)
    credentials = answer["Credentials"]
    left = credentials["Expiration"] - datetime.datetime.now(datetime.timezone.utc)
    assert 800 < left.total_seconds() <= 900, left
    assert answer["AssumedRoleUser"]["Arn"] == f"{ASSUMED}/nightly", answer
    assert generates(credentials) == 200
    assert call(credentials, "POST", "/keys", "{}") == 403
    held("a session may do what its beginner may")

    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:ListKeys"}]}
    narrow = sts.assume_role(RoleArn=ROLE, RoleSessionName="narrow", Policy=json.dumps(policy))["Credentials"]
    assert generates(narrow) == 403
    assert call(narrow, "GET", "/keys") == 200
    held("a policy narrows it")

    session = boto3.client(
        "sts",
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )
    assert session.get_caller_identity()["Arn"] == f"{ASSUMED}/nightly"
    for name, call_sts, code in [
        ("another session", lambda: session.assume_role(RoleArn=ROLE, RoleSessionName="again"), "AccessDenied"),
        ("13 hours", lambda: sts.assume_role(RoleArn=ROLE, RoleSessionName="long", DurationSeconds=46800), "ValidationError"),
        ("a user's token", sts.get_session_token, "InvalidAction"),
    ]:
        try:
            call_sts()
        except ClientError as error:
            assert error.response["Error"]["Code"] == code, (name, error)
        else:
            raise AssertionError(f"{name} was given")
    held("what is not to be had is refused by its code")


def by_the_cli():
    aws = [os.path.join(os.path.dirname(sys.executable), "aws"), "--endpoint-url", ENDPOINT, "--region", "us-east-1"]
    ask = ["sts", "assume-role", "--role-arn", ROLE, "--role-session-name", "cli"]
    said = subprocess.run([*aws, *ask], capture_output=True, text=True, check=True)
    credentials = json.loads(said.stdout)["Credentials"]
    assert generates(credentials) == 200
    held("the AWS CLI takes a session")


def by_minio_py():
    provider = AssumeRoleProvider(
        sts_endpoint=ENDPOINT, access_key=ACCESS, secret_key=SECRET, duration_seconds=900
    )
    taken = provider.retrieve()
    credentials = {"AccessKeyId": taken.access_key, "SecretAccessKey": taken.secret_key, "SessionToken": taken.session_token}
    assert generates(credentials) == 200
    host = ENDPOINT.removeprefix("http://")
    assert Minio(host, secure=False, credentials=provider).list_buckets() == []
    held("minio-py takes a session")


by_boto3()
by_the_cli()
by_minio_py()
