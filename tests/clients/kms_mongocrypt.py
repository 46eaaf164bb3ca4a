"""MongoDB's client-side encryption with data keys of AWS KMS's API. libmongocrypt writes and signs the requests itself.

Usage: kms_mongocrypt.py ENDPOINT CERTIFICATE, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. ENDPOINT is
https://127.0.0.1:PORT, with that certificate; libmongocrypt wants a dot in the name of the host.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import json
import os
import socket
import ssl
import sys

import boto3
import bson
from pymongocrypt.errors import MongoCryptError
from pymongocrypt.mongocrypt import MongoCryptOptions
from pymongocrypt.synchronous.explicit_encrypter import ExplicitEncrypter
from pymongocrypt.synchronous.state_machine import MongoCryptCallback

ENDPOINT, CERTIFICATE = sys.argv[1:]
REGION = "us-east-1"
ALGORITHM = "AEAD_AES_256_CBC_HMAC_SHA_512-Random"
kms = boto3.client("kms", endpoint_url=ENDPOINT, region_name=REGION, verify=CERTIFICATE)
tls = ssl.create_default_context(cafile=CERTIFICATE)


def held(check):
    print(json.dumps({"check": check}), flush=True)


class Driver(MongoCryptCallback):
    """Does what a MongoDB driver does, with the key vault in memory."""

    def __init__(self):
        self.vault = {}
        self.requests = 0

    def kms_request(self, context):
        self.requests += 1
        host, port = context.endpoint.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            with tls.wrap_socket(plain, server_hostname=host) as stream:
                stream.sendall(context.message)
                while context.bytes_needed > 0:
                    data = stream.recv(context.bytes_needed)
                    assert data, "the answer is cut short"
                    context.feed(data)

    def fetch_keys(self, filter):
        return list(self.vault.values())

    def insert_data_key(self, data_key):
        document = bson.decode(data_key)
        self.vault[bytes(document["_id"])] = data_key
        return document["_id"]

    def bson_encode(self, document):
        return bson.encode(document)

    def collection_info(self, database, filter):
        raise NotImplementedError

    def mark_command(self, database, command):
        raise NotImplementedError

    def close(self):
        pass


def encrypter(driver, secret=os.environ["AWS_SECRET_ACCESS_KEY"]):
    credentials = {"accessKeyId": os.environ["AWS_ACCESS_KEY_ID"], "secretAccessKey": secret}
    return ExplicitEncrypter(driver, MongoCryptOptions({"aws": credentials}))


def master_key(arn):
    return {"region": REGION, "key": arn, "endpoint": ENDPOINT.removeprefix("https://")}


def refused(code, call):
    try:
        call()
    except MongoCryptError as error:
        assert code in str(error), error
        return
    raise AssertionError(f"{code} was due")


def main():
    first, second = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    driver = Driver()
    key_id = encrypter(driver).create_data_key("aws", master_key(first))
    value = bson.encode({"v": "4111-1111-1111-1111"})
    sealed = encrypter(driver).encrypt(value, ALGORITHM, key_id=bytes(key_id))
    assert b"4111" not in sealed
    assert encrypter(driver).decrypt(sealed) == value
    assert driver.requests == 3, driver.requests
    held("a data key is made by Encrypt, and opened by Decrypt for each client")

    key = encrypter(driver).rewrap_many_data_key({}, "aws", master_key(second))
    (moved,) = bson.decode(key)["v"]
    assert moved["masterKey"]["key"] == second, moved
    # The driver sets these members of the document.
    kept = bson.decode(driver.vault[bytes(moved["_id"])])
    driver.vault = {bytes(moved["_id"]): bson.encode(kept | moved)}
    kms.disable_key(KeyId=first)
    assert encrypter(driver).decrypt(sealed) == value
    held("the data key moves to another key, which opens it without the first one")

    kms.disable_key(KeyId=second)
    refused("DisabledException", lambda: encrypter(driver).decrypt(sealed))
    kms.enable_key(KeyId=second)
    refused("InvalidSignatureException", lambda: encrypter(driver, "wrong").decrypt(sealed))
    held("a disabled key and a wrong secret are refused by their codes")


main()
