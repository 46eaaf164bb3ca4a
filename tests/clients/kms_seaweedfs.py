"""SeaweedFS's object store with data keys of AWS KMS's API.

Usage: kms_seaweedfs.py WEED ENDPOINT FOLDER, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. WEED is SeaweedFS's
program; FOLDER is an empty one.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED, ENDPOINT, FOLDER = sys.argv[1:]
REGION = "us-east-1"
kms = boto3.client("kms", endpoint_url=ENDPOINT, region_name=REGION)
TEXT = bytes(range(256)) * 40


def held(check):
    print(json.dumps({"check": check}), flush=True)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def settings():
    """The file that names Keyway as the KMS. Without a cache, each read asks for its data key."""
    keyway = {
        "type": "aws",
        "region": REGION,
        "endpoint": ENDPOINT,
        "access_key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "cache_enabled": False,
        "max_retries": 1,
    }
    credentials = [{"accessKey": "store", "secretKey": "store-secret"}]
    identities = [{"name": "admin", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]
    path = f"{FOLDER}/s3.json"
    with open(path, "w") as file:
        json.dump({"identities": identities, "kms": {"default_provider": "keyway", "providers": {"keyway": keyway}}}, file)
    return path


@contextlib.contextmanager
def seaweedfs(config):
    """A server, and a client of its S3 API."""
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    ports = dict(zip(names, free_ports(len(names))))
    command = [WEED, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={FOLDER}", f"-s3.config={config}"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=8", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    log = open(f"{FOLDER}/log", "ab")
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd=FOLDER)
    try:
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{ports['s3.port']}",
            region_name=REGION,
            aws_access_key_id="store",
            aws_secret_access_key="store-secret",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                s3.list_buckets()
                break
            except (BotoCoreError, ClientError):
                assert server.poll() is None and time.monotonic() < deadline, "SeaweedFS does not serve"
                time.sleep(0.1)
        yield s3
    finally:
        # It would wait 15 seconds for its own streams.
        server.kill()
        server.wait()
        log.close()


def read(s3, key):
    return s3.get_object(Bucket="films", Key=key)["Body"].read()


def refused(call):
    try:
        call()
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 400, error
        return
    raise AssertionError("it was not refused")


def put(s3, key, arn):
    return s3.put_object(Bucket="films", Key=key, Body=TEXT, ServerSideEncryption="aws:kms", SSEKMSKeyId=arn)


def first(call):
    """The first call to a server that has just started, which takes a moment until it has volumes."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main():
    config = settings()
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    with seaweedfs(config) as s3:
        s3.create_bucket(Bucket="films")
        made = first(lambda: put(s3, "a.txt", arn))
        assert made["ServerSideEncryption"] == "aws:kms", made
        head = s3.head_object(Bucket="films", Key="a.txt")
        assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == arn, head
        assert read(s3, "a.txt") == TEXT
        held("an object is written and read with a data key")
        kms.rotate_key_on_demand(KeyId=arn)
        put(s3, "b.txt", arn)
    with seaweedfs(config) as s3:
        assert first(lambda: read(s3, "a.txt")) == TEXT and read(s3, "b.txt") == TEXT
        held("objects from before and after a rotation are read after a restart")
        kms.disable_key(KeyId=arn)
        refused(lambda: read(s3, "a.txt"))
        refused(lambda: put(s3, "c.txt", arn))
        with open(f"{FOLDER}/log") as log:
            assert log.read().count(f"{arn} is disabled") >= 2
        kms.enable_key(KeyId=arn)
        assert read(s3, "a.txt") == TEXT
        held("a disabled key neither reads nor writes, and reads again once it is enabled")


main()
