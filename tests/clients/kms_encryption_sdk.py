"""AWS's Encryption SDK for Python over AWS KMS's API: master key providers, and the keyrings that replace them.

Usage: kms_encryption_sdk.py ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set.
Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import json
import os
import sys

import aws_encryption_sdk
import boto3
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import CreateAwsKmsMultiKeyringInput, CreateAwsKmsKeyringInput
from aws_encryption_sdk import CommitmentPolicy, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.identifiers import Algorithm

# The providers make clients of their own, one for each Region.
os.environ["AWS_ENDPOINT_URL_KMS"] = sys.argv[1]
kms = boto3.client("kms", region_name="us-west-2")
first, second = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
TEXT = bytes(range(256)) * 100
CONTEXT = {"purpose": "test", "ü": "€"}
sdk = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)


def held(check):
    print(json.dumps({"check": check}), flush=True)


def refused(name, **arguments):
    """The error has this name; the libraries below the SDK raise some of them."""
    try:
        sdk.decrypt(**arguments)
    except Exception as error:
        assert type(error).__name__ == name, repr(error)
        return
    raise AssertionError(f"{name} was due")


def by_providers():
    provider = StrictAwsKmsMasterKeyProvider(key_ids=[first, second])
    message, header = sdk.encrypt(source=TEXT, encryption_context=CONTEXT, key_provider=provider)
    assert header.algorithm == Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384, header
    assert {key.key_provider.key_info.decode() for key in header.encrypted_data_keys} == {first, second}
    for keys in ([first], [second]):
        text, header = sdk.decrypt(source=message, key_provider=StrictAwsKmsMasterKeyProvider(key_ids=keys))
        assert text == TEXT and CONTEXT.items() <= header.encryption_context.items()
    held("providers encrypt with key commitment, and either key decrypts")
    refused("InvalidSignature", source=message[:-1] + bytes([message[-1] ^ 1]), key_provider=provider)
    third = kms.create_key()["KeyMetadata"]["Arn"]
    refused("DecryptKeyError", source=message, key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[third]))
    kms.disable_key(KeyId=first)
    refused("DecryptKeyError", source=message, key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[first]))
    kms.enable_key(KeyId=first)
    held("changed messages, other keys and disabled keys are refused")


def by_keyrings():
    library = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    both = library.create_aws_kms_multi_keyring(CreateAwsKmsMultiKeyringInput(generator=first, kms_key_ids=[second]))
    message, _ = sdk.encrypt(source=TEXT, encryption_context=CONTEXT, keyring=both)
    single = CreateAwsKmsKeyringInput(kms_key_id=second, kms_client=kms)
    text, _ = sdk.decrypt(source=message, keyring=library.create_aws_kms_keyring(single), encryption_context=CONTEXT)
    assert text == TEXT
    refused("AWSEncryptionSDKClientError", source=message, keyring=both, encryption_context={"purpose": "other"})
    held("keyrings encrypt with key commitment, and another key decrypts")


by_providers()
by_keyrings()
