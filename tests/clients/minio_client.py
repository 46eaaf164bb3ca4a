"""Buckets and keys by minio-py: `Minio`, which asks where a bucket is before anything else, and `MinioAdmin`; and by s3cmd.

Usage: minio_client.py HOST:PORT KEY, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. KEY is an enabled key of the KMS and
the service's default. Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import json
import os
import subprocess
import sys

from minio import Minio, MinioAdmin
from minio.credentials import EnvAWSProvider
from minio.error import MinioAdminException, S3Error
from minio.sseconfig import Rule, SSEConfig

HOST, KEY = sys.argv[1:]
ACCESS, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]


def held(check):
    print(json.dumps({"check": check}), flush=True)


def refused(code, call):
    try:
        call()
    except S3Error as error:
        assert error.code == code, error
        return
    raise AssertionError(f"{code} was due")


def buckets():
    client = Minio(HOST, access_key=ACCESS, secret_key=SECRET, secure=False)
    assert not client.bucket_exists("albums")
    client.make_bucket("albums")
    assert client.bucket_exists("albums")
    assert "albums" in [bucket.name for bucket in client.list_buckets()]
    held("a bucket is made and found")

    assert client.get_bucket_encryption("albums") is None
    client.set_bucket_encryption("albums", SSEConfig(Rule.new_sse_kms_rule(KEY)))
    found = client.get_bucket_encryption("albums").rule
    assert (found.sse_algorithm, found.kms_master_key_id) == ("aws:kms", KEY), vars(found)
    client.delete_bucket_encryption("albums")
    assert client.get_bucket_encryption("albums") is None
    held("encryption is set, read and removed")

    refused("NotImplemented", lambda: client.get_bucket_versioning("albums"))
    refused("NotImplemented", lambda: list(client.list_objects("albums")))
    refused("NotImplemented", lambda: client.get_object("albums", "a/b.txt"))
    held("what is not served is refused in S3's words")

    client.remove_bucket("albums")
    assert not client.bucket_exists("albums")
    fresh = Minio(HOST, access_key=ACCESS, secret_key=SECRET, secure=False)
    refused("NoSuchBucket", lambda: fresh.get_bucket_encryption("albums"))
    held("a bucket is removed")


def keys():
    admin = MinioAdmin(endpoint=HOST, credentials=EnvAWSProvider(), secure=False)
    assert admin.kms_key_create("py-key") == ""
    assert json.loads(admin.kms_key_status("py-key")) == {"key-id": "py-key"}
    assert json.loads(admin.kms_key_status()) == {"key-id": KEY}
    for call in [lambda: admin.kms_key_create("py-key"), lambda: admin.kms_key_create()]:
        try:
            call()
        except MinioAdminException:
            continue
        raise AssertionError("it was to be refused")
    held("keys are made and tried out")


def s3cmd():
    program = os.path.join(os.path.dirname(sys.executable), "s3cmd")
    common = [program, "--config=/dev/null", f"--host={HOST}", f"--host-bucket={HOST}", "--no-ssl",
              f"--access_key={ACCESS}", f"--secret_key={SECRET}", "--no-check-certificate"]

    def run(*arguments):
        done = subprocess.run(common + list(arguments), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    run("mb", "s3://films")
    assert "s3://films" in run("ls")
    info = run("info", "s3://films")
    assert "s3://films/ (bucket)" in info and "us-east-1" in info, info
    run("rb", "s3://films")
    assert "s3://films" not in run("ls")
    held("s3cmd makes, lists, describes and removes a bucket")


buckets()
keys()
s3cmd()
