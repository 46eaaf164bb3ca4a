"""Kubernetes' KMS v2 by gRPC's own library, with a client that protoc makes from the published service.

Usage: kms_plugin_client.py SOCKET, of a plugin whose key can be used. Prints one JSON line for each check that held; ends
with another code than 0 at the first that did not.
"""

import json
import os
import sys
import tempfile

import grpc
from grpc_tools import protoc

HERE = os.path.dirname(os.path.abspath(__file__))
MADE = tempfile.TemporaryDirectory()
arguments = ["protoc", f"-I{HERE}", f"--python_out={MADE.name}", f"--grpc_python_out={MADE.name}", "kms_v2.proto"]
assert protoc.main(arguments) == 0
sys.path.insert(0, MADE.name)

import kms_v2_pb2 as messages  # noqa: E402
import kms_v2_pb2_grpc as service  # noqa: E402

# API servers wait for so many seconds.
TIMEOUT = 3


def held(check):
    print(json.dumps({"check": check}), flush=True)


def refused(call, request):
    try:
        call(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("it was not refused")


# API servers name no path in the request, and neither does this client: a path is no authority of HTTP/2.
with grpc.insecure_channel(f"unix://{sys.argv[1]}", options=[("grpc.default_authority", "localhost")]) as channel:
    plugin = service.KeyManagementServiceStub(channel)
    status = plugin.Status(messages.StatusRequest(), timeout=TIMEOUT)
    assert (status.version, status.healthz) == ("v2", "ok"), status
    assert 0 < len(status.key_id) <= 1024
    held("the plugin is healthy")

    seed = os.urandom(32)
    sealed = plugin.Encrypt(messages.EncryptRequest(plaintext=seed, uid="1"), timeout=TIMEOUT)
    assert sealed.key_id == status.key_id
    assert 0 < len(sealed.ciphertext) <= 1024 and seed not in sealed.ciphertext
    held("a seed is encrypted under the key of the status")

    request = messages.DecryptRequest(
        ciphertext=sealed.ciphertext, uid="2", key_id=sealed.key_id, annotations=sealed.annotations
    )
    assert plugin.Decrypt(request, timeout=TIMEOUT).plaintext == seed
    request.annotations["kms.example.com"] = b"unknown"
    assert plugin.Decrypt(request, timeout=TIMEOUT).plaintext == seed
    held("it is decrypted, whatever annotations are stored beside it")

    request.ciphertext = sealed.ciphertext[:-1]
    assert refused(plugin.Decrypt, request) == grpc.StatusCode.INVALID_ARGUMENT
    long = messages.EncryptRequest(plaintext=bytes(1 << 20), uid="3")
    assert refused(plugin.Encrypt, long) == grpc.StatusCode.OUT_OF_RANGE
    held("a changed ciphertext and a long plaintext are refused")
