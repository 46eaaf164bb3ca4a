// Buckets by minio-js, which asks where a bucket is before anything else.
//
// Usage: minio_client.mjs HOST:PORT KEY, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. KEY is an enabled key of the KMS.
// Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.

import assert from "node:assert/strict";
import { Client } from "minio";
import { held, refused } from "./checks.mjs";

const [host, key] = process.argv.slice(2);
const { hostname, port } = new URL(`http://${host}`);
const connect = () =>
  new Client({
    endPoint: hostname,
    port: Number(port),
    useSSL: false,
    accessKey: process.env.AWS_ACCESS_KEY_ID,
    secretKey: process.env.AWS_SECRET_ACCESS_KEY,
  });
const client = connect();
const bucket = "js-albums";

assert.equal(await client.bucketExists(bucket), false);
await client.makeBucket(bucket);
assert.equal(await client.bucketExists(bucket), true);
const names = (await client.listBuckets()).map(({ name }) => name);
assert.ok(names.includes(bucket), String(names));
held("a bucket is made and found");

const absent = "ServerSideEncryptionConfigurationNotFoundError";
await refused(absent, () => client.getBucketEncryption(bucket));
const rule = { ApplyServerSideEncryptionByDefault: { SSEAlgorithm: "aws:kms", KMSMasterKeyID: key } };
await client.setBucketEncryption(bucket, { Rule: [rule] });
const found = JSON.stringify(await client.getBucketEncryption(bucket));
assert.ok(found.includes(`"SSEAlgorithm":"aws:kms"`) && found.includes(`"KMSMasterKeyID":"${key}"`), found);
await client.removeBucketEncryption(bucket);
await refused(absent, () => client.getBucketEncryption(bucket));
held("encryption is set, read and removed");

await refused("NotImplemented", () => client.putObject(bucket, "a/b.txt", "b"));
await refused("NotImplemented", () => client.getObject(bucket, "a/b.txt"));
await refused("NotImplemented", () => client.getBucketVersioning(bucket));
held("what is not served is refused in S3's words");

await client.removeBucket(bucket);
assert.equal(await client.bucketExists(bucket), false);
await refused("NoSuchBucket", () => connect().getBucketEncryption(bucket));
held("a bucket is removed");
