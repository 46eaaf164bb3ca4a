// AWS KMS's API by AWS's SDK for JavaScript, and AWS's Encryption SDK for JavaScript over it.
//
// Usage: kms_client.mjs ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set.
// Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.

import assert from "node:assert/strict";
import { buildClient, CommitmentPolicy, KmsKeyringNode, KMS } from "@aws-crypto/client-node";
import * as kms from "@aws-sdk/client-kms";
import { held } from "./checks.mjs";

const [endpoint] = process.argv.slice(2);
const region = "eu-central-1";
const client = new kms.KMSClient({ endpoint, region, maxAttempts: 1 });
const send = (Command, input = {}) => client.send(new Command(input));
const EncryptionContext = { bucket: "films", path: "a b/ü.txt" };

/** Expects the SDK's own class for this error. */
async function refused(Exception, call) {
  const error = await call().then(
    () => assert.fail(`${Exception.name} was due`),
    (error) => error,
  );
  assert.ok(error instanceof Exception, String(error.stack));
  assert.equal(error.$metadata.httpStatusCode, 400);
  assert.ok(error.$metadata.requestId, JSON.stringify(error.$metadata));
}

const { KeyMetadata } = await send(kms.CreateKeyCommand, { Description: "by JavaScript", Tags: [{ TagKey: "a", TagValue: "1" }] });
const { KeyId, Arn } = KeyMetadata;
assert.equal(Arn, `arn:aws:kms:${region}:000000000000:key/${KeyId}`);
assert.ok(KeyMetadata.CreationDate instanceof Date);
assert.deepEqual((await send(kms.DescribeKeyCommand, { KeyId: Arn })).KeyMetadata, KeyMetadata);
assert.deepEqual((await send(kms.ListResourceTagsCommand, { KeyId })).Tags, [{ TagKey: "a", TagValue: "1" }]);
held("a key is made and described");

const made = await send(kms.GenerateDataKeyCommand, { KeyId, KeySpec: "AES_256", EncryptionContext });
assert.equal(made.Plaintext.length, 32);
const { CiphertextBlob } = made;
const opened = await send(kms.DecryptCommand, { CiphertextBlob, EncryptionContext });
assert.deepEqual(opened.Plaintext, made.Plaintext);
assert.equal(opened.KeyId, Arn);
await refused(kms.InvalidCiphertextException, () => send(kms.DecryptCommand, { CiphertextBlob }));
const second = (await send(kms.CreateKeyCommand)).KeyMetadata.KeyId;
const move = { CiphertextBlob, SourceEncryptionContext: EncryptionContext, DestinationKeyId: second };
const moved = await send(kms.ReEncryptCommand, move);
const ofSecond = await send(kms.DecryptCommand, { CiphertextBlob: moved.CiphertextBlob, KeyId: second });
assert.deepEqual(ofSecond.Plaintext, made.Plaintext);
await refused(kms.IncorrectKeyException, () => send(kms.DecryptCommand, { CiphertextBlob: moved.CiphertextBlob, KeyId }));
held("a data key is made, opened and moved to another key");

const ids = [];
for await (const page of kms.paginateListKeys({ client, pageSize: 1 }, {})) {
  ids.push(...page.Keys.map(({ KeyId }) => KeyId));
}
assert.ok(ids.includes(KeyId) && ids.includes(second), String(ids));
assert.equal(new Set(ids).size, ids.length);
held("the SDK's paginator lists every key once");

await send(kms.DisableKeyCommand, { KeyId });
await refused(kms.DisabledException, () => send(kms.DecryptCommand, { CiphertextBlob, EncryptionContext }));
await send(kms.EnableKeyCommand, { KeyId });
await refused(kms.NotFoundException, () => send(kms.DescribeKeyCommand, { KeyId: "00000000-0000-4000-8000-000000000000" }));
await refused(kms.DryRunOperationException, () => send(kms.EncryptCommand, { KeyId, Plaintext: new Uint8Array([1]), DryRun: true }));
await refused(kms.UnsupportedOperationException, () => send(kms.GetPublicKeyCommand, { KeyId }));
held("refusals are the SDK's own errors");

const { encrypt, decrypt } = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
const clientProvider = () => new KMS({ endpoint, region });
const generator = new KmsKeyringNode({ generatorKeyId: Arn, keyIds: [`arn:aws:kms:${region}:000000000000:key/${second}`], clientProvider });
const text = "x".repeat(10_000);
const { result } = await encrypt(generator, text, { encryptionContext: { purpose: "test" } });
for (const keyring of [generator, new KmsKeyringNode({ keyIds: [`arn:aws:kms:${region}:000000000000:key/${second}`], clientProvider })]) {
  const { plaintext, messageHeader } = await decrypt(keyring, result);
  assert.equal(plaintext.toString(), text);
  assert.equal(messageHeader.encryptionContext.purpose, "test");
  // Key commitment, with a signature.
  assert.equal(messageHeader.suiteId, 0x0578);
}
const broken = Buffer.from(result);
broken[broken.length - 1] ^= 1;
await assert.rejects(decrypt(generator, broken));
held("the Encryption SDK encrypts with key commitment and decrypts");
