"""OpenBao's server, unsealed with a key of AWS KMS's API.

Usage: kms_openbao.py BAO ENDPOINT FOLDER, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. BAO is OpenBao 2.6 or
older: later ones have no `seal "awskms"`. FOLDER is an empty one.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import boto3

BAO, ENDPOINT, FOLDER = sys.argv[1:]
REGION = "us-east-1"
kms = boto3.client("kms", endpoint_url=ENDPOINT, region_name=REGION)


def held(check):
    print(json.dumps({"check": check}), flush=True)


def settings(key):
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    listen, cluster = (f"127.0.0.1:{port.getsockname()[1]}" for port in ports)
    for port in ports:
        port.close()
    path = f"{FOLDER}/bao.hcl"
    with open(path, "w") as file:
        file.write(f"""
listener "tcp" {{
  address = "{listen}"
  cluster_address = "{cluster}"
  tls_disable = true
}}
storage "file" {{
  path = "{FOLDER}/storage"
}}
seal "awskms" {{
  region = "{REGION}"
  endpoint = "{ENDPOINT}"
  kms_key_id = "{key}"
}}
api_addr = "http://{listen}"
""")
    os.environ["BAO_ADDR"] = f"http://{listen}"
    return path


def bao(*arguments, codes=(0,)):
    ended = subprocess.run([BAO, *arguments], capture_output=True, text=True)
    assert ended.returncode in codes, (arguments, ended)
    return ended.stdout


@contextlib.contextmanager
def openbao(config):
    with open(f"{FOLDER}/log", "ab") as log:
        server = subprocess.Popen([BAO, "server", f"-config={config}"], stdout=log, stderr=log)
        try:
            yield server
        finally:
            server.terminate()
            server.wait(30)


def status(server, wanted):
    """The status, once it is as it should be."""
    deadline = time.monotonic() + 60
    while True:
        answer = subprocess.run([BAO, "status", "-format=json"], capture_output=True, text=True)
        found = json.loads(answer.stdout) if answer.stdout.startswith("{") else {}
        if wanted.items() <= found.items():
            return found
        assert server.poll() is None and time.monotonic() < deadline, (found, answer.stderr)
        time.sleep(0.1)


def main():
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    config = settings(key)
    with openbao(config) as server:
        status(server, {"initialized": False})
        made = json.loads(bao("operator", "init", "-format=json", "-recovery-shares=1", "-recovery-threshold=1"))
        found = status(server, {"initialized": True, "sealed": False})
        assert found["type"] == "awskms", found
        os.environ["BAO_TOKEN"] = made["root_token"]
        bao("secrets", "enable", "-path=kept", "kv")
        bao("kv", "put", "kept/a", "value=1")
        held("OpenBao is initialized and unsealed")
    with openbao(config) as server:
        status(server, {"initialized": True, "sealed": False})
        assert json.loads(bao("kv", "get", "-format=json", "kept/a"))["data"] == {"value": "1"}
        held("it unseals itself after a restart")
    kms.rotate_key_on_demand(KeyId=key)
    kms.disable_key(KeyId=key)
    with openbao(config) as server:
        # It may end for that reason.
        while server.poll() is None and "DisabledException" not in open(f"{FOLDER}/log").read():
            time.sleep(0.1)
        answer = subprocess.run([BAO, "status", "-format=json"], capture_output=True, text=True)
        assert not answer.stdout or json.loads(answer.stdout)["sealed"], answer
    kms.enable_key(KeyId=key)
    with openbao(config) as server:
        status(server, {"initialized": True, "sealed": False})
        held("it stays sealed while the key is disabled, and unseals after a rotation")


main()
