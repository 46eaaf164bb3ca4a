#!/usr/bin/env python3
"""Makes the data folder of one release, for the tests of upgrades: make.py RELEASE KEYWAY_BINARY

RELEASE is a folder beside this script that does not exist yet. The script starts that release's own `keyway serve`, makes
keys, ciphertexts, access keys and whatever else the release has, stops the server, and writes what a later release must
still do with the folder into expected.json. It needs botocore (tests/clients/requirements.txt).
"""
import base64
import http.client
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import time

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

HERE = pathlib.Path(__file__).parent
PASSPHRASE = "of the release before"
RUSTFS = "/rustfs/admin/v3"


class Release:
    def __init__(self, name, binary):
        self.binary = binary
        self.folder = HERE / name
        self.data = self.folder / "data"
        self.folder.mkdir()
        # The oldest release of these has the passphrase's format too.
        self.passphrase = PASSPHRASE if name == "0.1.0" else None
        self.help = self.run("serve", "--help")
        self.expected = {"passphrase": self.passphrase, "access_keys": [], "keys": {}, "opens": [], "identity": None}

    def has(self, option):
        return option in self.help

    def environment(self, **more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYWAY_")}
        if self.passphrase:
            clean["KEYWAY_PASSPHRASE"] = self.passphrase
        return clean | more

    def run(self, *arguments, **variables):
        done = subprocess.run(
            [self.binary, *arguments], check=True, capture_output=True, text=True, env=self.environment(**variables)
        )
        return done.stdout

    def start(self):
        arguments = ["serve", "--data-dir", str(self.data), "--listen", "127.0.0.1:0", "--start"]
        if self.has("--audit-retention-days"):
            arguments += ["--audit-retention-days", "0"]
        if self.has("--kes-listen"):
            made = self.run("identity", "new", "--kind", "ecdsa", "--cert", str(self.folder / "admin.crt"), "--key", str(self.folder / "admin.key"))
            self.identity = re.search("[0-9a-f]{64}", made).group()
            arguments += ["--kes-listen", "127.0.0.1:0", "--kes-admin-identity", self.identity]
        self.server = subprocess.Popen(
            [self.binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )
        for line in self.server.stdout:
            if "keyway is serving" in line:
                self.addresses = json.loads(line)
                return
        raise SystemExit(self.server.stderr.read())

    def stop(self):
        time.sleep(2)  # The audit log writes its last batch.
        self.server.terminate()
        out, err = self.server.communicate()
        assert self.server.returncode == 0, err
        return out

    def root(self):
        text = ""
        while "SECRET_ACCESS_KEY" not in text:
            text += self.server.stderr.readline()
        return re.findall(r"AWS_\w+=(\S+)", text)

    def call(self, key, method, path, body=None, service="execute-api", target=None):
        data = "" if body is None else json.dumps(body)
        headers = {"content-type": "application/x-amz-json-1.1" if target else "application/json"}
        if target:
            headers["x-amz-target"] = f"TrentService.{target}"
        request = AWSRequest(method, f"http://{self.addresses['listen']}{path}", headers, data)
        auth = S3SigV4Auth if service == "s3" else SigV4Auth
        auth(Credentials(*key), service, "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(self.addresses["listen"])
        connection.request(method, path, data, dict(request.headers))
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, (method, path, answer.status, text)
        return json.loads(text) if text and service != "s3" else None

    def kes(self, method, path, body=None):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        connection = http.client.HTTPSConnection(self.addresses["kes"], context=context)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, (method, path, answer.status, text)
        return json.loads(text) if text else None

    def opens(self, api, key, request, plaintext):
        self.expected["opens"].append({"api": api, "key": key, "request": request, "plaintext": plaintext})

    def data_key(self, key, key_id, context):
        body = {"key_id": key_id, **({"encryption_context": context} if context else {})}
        made = self.call(key, "POST", f"{RUSTFS}/kms/generate-data-key", body)
        request = {"ciphertext_blob": made["ciphertext_blob"], **({"encryption_context": context} if context else {})}
        self.opens("rustfs", key_id, request, made["plaintext_key"])

    def access_key(self, *arguments):
        made = json.loads(
            self.run("access-key", "create", "--data-dir", str(self.data), "--output", "json", *arguments)
        )
        self.expected["access_keys"].append({"may": [], **made})
        return [made["access_key_id"], made["secret_access_key"]], self.expected["access_keys"][-1]


def make(release):
    release.start()
    root = release.root()
    release.expected["access_keys"].append(
        {"may": ["reports", "prefix-one"], "access_key_id": root[0], "secret_access_key": root[1]}
    )
    for key in ["reports", "frozen", "prefix-one"]:
        release.call(root, "POST", f"{RUSTFS}/kms/keys", {"key_id": key, "Tags": {"made": "before"}})
    release.data_key(root, "reports", None)
    release.data_key(root, "reports", {"bucket": "b", "object": "o"})
    release.call(root, "POST", f"{RUSTFS}/kms/keys/rotate", {"key_id": "reports"})
    release.data_key(root, "reports", {"bucket": "b"})
    release.data_key(root, "prefix-one", None)
    release.call(root, "POST", f"{RUSTFS}/kms/keys/disable", {"key_id": "frozen"})
    release.expected["keys"] = {"reports": ["Enabled", 2], "frozen": ["Disabled", 1], "prefix-one": ["Enabled", 1]}
    _, user = release.access_key("--policy", "kms-key-user", "--key", "prefix-*")
    user["may"] = ["prefix-one"]
    # No temporary access key: it would outlive its year before the tests do.
    if release.has("--kes-listen"):
        of_kes(release, root)
    if release.has("--aws-account-id"):
        of_aws(release, root)
    audit = release.stop()
    if release.has("--audit "):
        release.expected["audit_events"] = sum('"audit":' in line for line in audit.splitlines())


def of_kes(release, root):
    release.kes("POST", "/v1/key/create/minio")
    context = base64.b64encode(b"bucket/object").decode()
    made = release.kes("POST", "/v1/key/generate/minio", {"context": context})
    release.opens("kes", "minio", {"ciphertext": made["ciphertext"], "context": context}, made["plaintext"])
    release.kes("POST", "/v1/policy/write/readers", {"allow": {"/v1/key/list/*": {}}})
    reader = "ab" * 32
    release.kes("POST", "/v1/policy/assign/readers", {"identity": reader})
    release.expected["identity"] = {"identity": reader, "policy": "readers"}
    release.call(root, "PUT", "/files", service="s3")
    release.call(root, "PUT", "/api/v1/bucket-encryption/files", {"sse_algorithm": "aws:kms", "kms_master_key_id": "reports"})
    release.expected["bucket"] = "files"


def of_aws(release, root):
    def aws(target, body):
        return release.call(root, "POST", "/aws", body, service="kms", target=target)

    aws("CreateAlias", {"AliasName": "alias/app", "TargetKeyId": "reports"})
    made = aws("GenerateDataKey", {"KeyId": "alias/app", "KeySpec": "AES_256", "EncryptionContext": {"a": "b"}})
    request = {"CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": {"a": "b"}}
    release.opens("aws", "reports", request, made["Plaintext"])
    mac_key = aws("CreateKey", {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"})["KeyMetadata"]["KeyId"]
    message = base64.b64encode(b"message").decode()
    mac = aws("GenerateMac", {"KeyId": mac_key, "MacAlgorithm": "HMAC_SHA_256", "Message": message})["Mac"]
    release.expected["mac"] = {"KeyId": mac_key, "MacAlgorithm": "HMAC_SHA_256", "Message": message, "Mac": mac}
    aws("EnableKeyRotation", {"KeyId": "prefix-one", "RotationPeriodInDays": 2560})


def main():
    release = Release(sys.argv[1], os.path.abspath(sys.argv[2]))
    try:
        make(release)
    finally:
        if release.server.poll() is None:
            release.server.kill()
    for left in ["admin.crt", "admin.key", "data/kes-listener.crt", "data/kes-listener.key", "data/kes-listener.lock", "data/secrets/.lock", "data/keyway.db-wal", "data/keyway.db-shm"]:
        (release.folder / left).unlink(missing_ok=True)
    text = json.dumps(release.expected, indent=2)
    (release.folder / "expected.json").write_text(text + "\n")


main()
