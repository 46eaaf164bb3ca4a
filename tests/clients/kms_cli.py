"""AWS KMS's API by AWS's CLI, version 1 or 2.

Usage: kms_cli.py AWS ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. AWS is the CLI's program.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import base64
import json
import subprocess
import sys
import tempfile

AWS, ENDPOINT = sys.argv[1:]


def held(check):
    print(json.dumps({"check": check}), flush=True)


def run(*arguments):
    command = [AWS, "--endpoint-url", ENDPOINT, "--region", "us-east-1", "--output", "json", "kms", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def aws(*arguments):
    ended = run(*arguments)
    assert ended.returncode == 0, (arguments, ended.stderr)
    return json.loads(ended.stdout) if ended.stdout.strip() else None


def refused(code, *arguments):
    ended = run(*arguments)
    assert ended.returncode != 0 and f"({code})" in ended.stderr, (arguments, ended)


def a_key():
    key = aws("create-key", "--description", "by the CLI", "--tags", "TagKey=team,TagValue=data")["KeyMetadata"]["KeyId"]
    assert aws("describe-key", "--key-id", key)["KeyMetadata"]["Description"] == "by the CLI"
    listed = aws("list-keys", "--page-size", "1")["Keys"]
    assert key in [item["KeyId"] for item in listed], listed
    assert aws("list-resource-tags", "--key-id", key)["Tags"] == [{"TagKey": "team", "TagValue": "data"}]
    assert aws("disable-key", "--key-id", key) is None
    refused("DisabledException", "generate-data-key", "--key-id", key, "--key-spec", "AES_256")
    assert aws("enable-key", "--key-id", key) is None
    held("a key is made, listed, disabled and enabled")
    return key


def a_file(key):
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed = f"{folder}/plain", f"{folder}/sealed"
        with open(plain, "wb") as file:
            file.write(bytes(range(256)))
        context = ["--encryption-context", "path=a.txt,team=data"]
        made = aws("encrypt", "--key-id", key, "--plaintext", f"fileb://{plain}", *context)
        with open(sealed, "wb") as file:
            file.write(base64.b64decode(made["CiphertextBlob"]))
        opened = aws("decrypt", "--ciphertext-blob", f"fileb://{sealed}", *context)
        assert base64.b64decode(opened["Plaintext"]) == bytes(range(256))
        refused("InvalidCiphertextException", "decrypt", "--ciphertext-blob", f"fileb://{sealed}")
    held("a file is encrypted and decrypted")


a_file(a_key())
