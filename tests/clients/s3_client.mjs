// Buckets by AWS's SDK for JavaScript.
//
// Usage: s3_client.mjs ENDPOINT KEY, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. KEY is an enabled key of the KMS.
// Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.

import assert from "node:assert/strict";
import * as s3 from "@aws-sdk/client-s3";
import { held, refused } from "./checks.mjs";

const [endpoint, key] = process.argv.slice(2);
const client = new s3.S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, maxAttempts: 1 });
const Bucket = "sdk-albums";
const send = (Command, more = {}) => client.send(new Command({ Bucket, ...more }));
const status = (error) => error.$metadata.httpStatusCode;

const missing = await refused("NotFound", () => send(s3.HeadBucketCommand));
assert.equal(status(missing), 404);
const made = await send(s3.CreateBucketCommand);
assert.equal(made.Location, `/${Bucket}`);
await send(s3.HeadBucketCommand);
await refused("BucketAlreadyOwnedByYou", () => send(s3.CreateBucketCommand));
const { Buckets } = await client.send(new s3.ListBucketsCommand({}));
const listed = Buckets.find(({ Name }) => Name === Bucket);
assert.ok(listed?.CreationDate instanceof Date, JSON.stringify(Buckets));
held("a bucket is made and found");

const absent = "ServerSideEncryptionConfigurationNotFoundError";
await refused(absent, () => send(s3.GetBucketEncryptionCommand));
const encryption = (SSEAlgorithm, KMSMasterKeyID) => ({
  Rules: [
    {
      ApplyServerSideEncryptionByDefault: { SSEAlgorithm, ...(KMSMasterKeyID && { KMSMasterKeyID }) },
      BucketKeyEnabled: false,
    },
  ],
});
const put = (ServerSideEncryptionConfiguration, more) =>
  send(s3.PutBucketEncryptionCommand, { ServerSideEncryptionConfiguration, ...more });
for (const [wanted, more] of [
  [encryption("aws:kms", key)],
  [encryption("AES256")],
  ...Object.values(s3.ChecksumAlgorithm)
    .filter((name) => ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"].includes(name))
    .map((ChecksumAlgorithm) => [encryption("aws:kms", key), { ChecksumAlgorithm }]),
]) {
  await put(wanted, more);
  const { ServerSideEncryptionConfiguration } = await send(s3.GetBucketEncryptionCommand);
  assert.deepEqual(ServerSideEncryptionConfiguration, wanted);
}
const unknown = await refused("KMS.NotFoundException", () => put(encryption("aws:kms", "no-such-key")));
assert.equal(status(unknown), 400);
await send(s3.DeleteBucketEncryptionCommand);
await refused(absent, () => send(s3.GetBucketEncryptionCommand));
held("encryption is set, read and removed");

for (const [Command, more] of [
  [s3.PutObjectCommand, { Key: "a/b.txt", Body: "b" }],
  [s3.GetObjectCommand, { Key: "a/b.txt" }],
  [s3.ListObjectsV2Command, {}],
  [s3.CreateMultipartUploadCommand, { Key: "a/b.txt" }],
]) {
  const error = await refused("NotImplemented", () => send(Command, more));
  assert.equal(status(error), 501);
  assert.ok(error.$metadata.requestId, JSON.stringify(error));
}
held("what is not served is refused in S3's words");

await send(s3.DeleteBucketCommand);
await refused("NoSuchBucket", () => send(s3.DeleteBucketCommand));
await refused("NotFound", () => send(s3.HeadBucketCommand));
held("a bucket is removed");
