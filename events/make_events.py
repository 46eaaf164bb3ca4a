#!/usr/bin/env python3
"""Makes the events beside it: what each front sends to a function, for every route of the front.

HTTP APIs and REST APIs have an event of each route of the template's HTTP API, function URLs and load balancers of each route
of the function behind them, KES's fronts of each route of KES's API, all below one of their prefixes. AWS KMS's API has none.

    make_events.py                writes them
    make_events.py --check        fails if they are not what it would write
    make_events.py --sign FILE    prints one, signed now with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
                                  (and AWS_SESSION_TOKEN), for `cargo lambda invoke`

The signatures in the files are right for the access key of AWS's own examples, on the day that is in them. Pages (health
and the description) have none. Events of KES's API have none: they tell of a certificate, whose identity may do everything where
KEYWAY_KES_ADMIN is
54f9cbe5cfa204bd7eb2c9ed4cfaad7aaeb85e43e06f428525fac5a1d35631cb. Only the standard library is needed.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import pathlib
import sys
from urllib.parse import parse_qsl, quote

HERE = pathlib.Path(__file__).resolve().parent
PREFIX = "/rustfs/admin/v3"

EXAMPLE_KEY = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)
EXAMPLE_TIME = datetime.datetime(2026, 11, 20, 12, 0, 0, tzinfo=datetime.timezone.utc)
REGION = "us-east-1"

ACCOUNT = "123456789012"
API = "a1b2c3d4e5"
URL_ID = "k3yw4yexample0000000000000000000"
CLIENT = "203.0.113.7"
AGENT = "awscurl/0.36"
TRACE = f"Root=1-{int(EXAMPLE_TIME.timestamp()):x}-0f1e2d3c4b5a69788796a5b4"
REQUEST = "7f9c2ba4-e88f-4274-9fdc-0d3a1c5b6e77"

# A sealed data key of the right shape; whose key it is sealed under nobody has any more.
BLOB = (
    "x0sBAQAAAAABBm15LWtleUOonlfdH+1djWDSvHjlhMWex4/hW+YpfYvKQ0i3MVGMfWX30HsjON9IgI89RCgMlQg/7+VHOCTXrPXcjBISkZ9JEV"
    "s4Qa7pZJ72iz5Fw5Mm+Jj6TB7HMcnvGLLbcR2lLYtEBO5Q4WcTj3V7YggL0RE="
)
CONTEXT = {"bucket": "backups", "object": "2026/q4.tar"}

# name, method, route, path parameters, query, body, in the order of a key's life: the suite sends them so, and each must
# succeed. Routes are below PREFIX, but for those of MinIO's own API, of AWS KMS's, of S3's, of STS and of pages.
SAMPLES = [
    ("status", "GET", "/kms/status", {}, "", None),
    ("status-by-post", "POST", "/kms/status", {}, "", None),
    ("service-status", "GET", "/kms/service-status", {}, "", None),
    ("read-audit", "GET", "/kms/audit", {}, "limit=25&principal=AKIAIOSFODNN7EXAMPLE", None),
    ("show-config", "GET", "/kms/config", {}, "", None),
    ("stop", "POST", "/kms/stop", {}, "", {}),
    ("configure", "POST", "/kms/configure", {}, "", {"backend_type": "local", "cache_ttl_seconds": 600}),
    ("start", "POST", "/kms/start", {}, "", {"force": False}),
    ("reconfigure", "POST", "/kms/reconfigure", {}, "", {"default_key_id": "reports"}),
    ("clear-cache", "POST", "/kms/clear-cache", {}, "", {}),
    ("create-key", "POST", "/kms/keys", {}, "",
     {"key_id": "reports", "key_usage": "ENCRYPT_DECRYPT", "description": "project-alpha",
      "tags": {"owner": "security"}}),
    ("create-key-by-verb", "POST", "/kms/create-key", {}, "keyName=invoices", {"key_usage": "ENCRYPT_DECRYPT"}),
    ("list-keys", "GET", "/kms/keys", {}, "limit=25&status=Enabled&prefix=reports", None),
    ("list-keys-by-verb", "GET", "/kms/list-keys", {}, "limit=100", None),
    ("describe-key", "GET", "/kms/keys/{key_id}", {"key_id": "reports"}, "impact=true", None),
    ("describe-key-by-query", "GET", "/kms/describe-key", {}, "keyId=reports", None),
    ("generate-data-key", "POST", "/kms/generate-data-key", {}, "",
     {"key_id": "reports", "key_spec": "AES_256", "encryption_context": CONTEXT}),
    ("encrypt", "POST", "/kms/encrypt", {}, "",
     {"key_id": "reports", "plaintext": "aGVsbG8sIHdvcmxk", "encryption_context": CONTEXT}),
    ("decrypt", "POST", "/kms/decrypt", {}, "", {"ciphertext_blob": BLOB, "encryption_context": CONTEXT}),
    ("rewrap", "POST", "/kms/rewrap", {}, "", {"ciphertext_blob": BLOB, "encryption_context": CONTEXT}),
    ("aws-update-key-description", "POST", "/aws", {}, "", {"KeyId": "reports", "Description": "quarterly reports"}),
    ("aws-generate-data-key", "POST", "/aws/data", {}, "",
     {"KeyId": "reports", "KeySpec": "AES_256", "EncryptionContext": CONTEXT}),
    ("rotate-key", "POST", "/kms/keys/rotate", {}, "", {"key_id": "reports"}),
    ("update-key-description", "POST", "/kms/keys/update-description", {}, "",
     {"key_id": "reports", "description": "quarterly reports"}),
    ("tag-key", "POST", "/kms/keys/tag", {}, "", {"key_id": "reports", "tags": {"stage": "production"}}),
    ("untag-key", "POST", "/kms/keys/untag", {}, "", {"key_id": "reports", "tag_keys": ["stage"]}),
    ("disable-key", "POST", "/kms/keys/disable", {}, "", {"key_id": "reports"}),
    ("enable-key", "POST", "/kms/keys/enable", {}, "", {"key_id": "reports"}),
    ("delete-key", "DELETE", "/kms/keys/delete", {}, "keyId=reports&pending_window_in_days=30", None),
    ("cancel-key-deletion", "POST", "/kms/keys/cancel-deletion", {}, "", {"key_id": "reports"}),
    ("first-create-key", "POST", "/kms/key/create", {}, "keyName=first", None),
    ("first-list-keys", "GET", "/kms/key/list", {}, "pattern=first", None),
    ("first-key-status", "GET", "/kms/key/status", {}, "keyName=first", None),
    ("first-disable-key", "POST", "/kms/key/disable", {}, "keyName=first", None),
    ("first-enable-key", "POST", "/kms/key/enable", {}, "keyName=first", None),
    ("first-disable-key-by-put", "PUT", "/kms/key/disable", {}, "keyName=first", None),
    ("first-enable-key-by-put", "PUT", "/kms/key/enable", {}, "keyName=first", None),
    ("mc-create-key", "POST", "/minio/kms/v1/key/create", {}, "key-id=mc", None),
    ("mc-list-keys", "GET", "/minio/kms/v1/key/list", {}, "pattern=mc", None),
    ("mc-key-status", "GET", "/minio/kms/v1/key/status", {}, "key-id=mc", None),
    ("mc-status", "GET", "/minio/kms/v1/status", {}, "", None),
    ("mc-metrics", "GET", "/minio/kms/v1/metrics", {}, "", None),
    ("mc-apis", "GET", "/minio/kms/v1/apis", {}, "", None),
    ("mc-version", "GET", "/minio/kms/v1/version", {}, "", None),
    # S3's own protocol, at the root.
    ("s3-create-bucket", "PUT", "/{bucket}", {"bucket": "photos"}, "", None),
    ("s3-list-buckets", "GET", "/", {}, "x-id=ListBuckets", None),
    ("s3-head-bucket", "HEAD", "/{bucket}", {"bucket": "photos"}, "", None),
    ("list-buckets", "GET", "/api/v1/buckets", {}, "", None),
    ("put-bucket-encryption", "PUT", "/api/v1/bucket-encryption/{bucket}", {"bucket": "photos"}, "",
     {"sse_algorithm": "aws:kms", "kms_master_key_id": "reports"}),
    ("get-bucket-encryption", "GET", "/api/v1/bucket-encryption/{bucket}", {"bucket": "photos"}, "", None),
    ("delete-bucket-encryption", "DELETE", "/api/v1/bucket-encryption/{bucket}", {"bucket": "photos"}, "", None),
    ("s3-put-bucket-encryption", "PUT", "/{bucket}", {"bucket": "photos"}, "encryption=",
     '<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>'
     "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
     "</Rule></ServerSideEncryptionConfiguration>"),
    ("s3-get-bucket-encryption", "GET", "/{bucket}", {"bucket": "photos"}, "encryption=", None),
    ("s3-delete-bucket-encryption", "DELETE", "/{bucket}", {"bucket": "photos"}, "encryption=", None),
    ("s3-get-bucket-location", "GET", "/{bucket}", {"bucket": "photos"}, "location=", None),
    # What S3 does besides is refused in its words.
    ("s3-put-object", "PUT", "/{bucket}/{proxy+}", {"bucket": "photos", "proxy": "2026/q4.txt"}, "", "hello"),
    ("s3-get-object", "GET", "/{bucket}/{proxy+}", {"bucket": "photos", "proxy": "2026/q4.txt"}, "", None),
    ("s3-head-object", "HEAD", "/{bucket}/{proxy+}", {"bucket": "photos", "proxy": "2026/q4.txt"}, "", None),
    ("s3-create-multipart-upload", "POST", "/{bucket}/{proxy+}", {"bucket": "photos", "proxy": "2026/q4.txt"}, "uploads=",
     None),
    ("s3-delete-object", "DELETE", "/{bucket}/{proxy+}", {"bucket": "photos", "proxy": "2026/q4.txt"}, "", None),
    ("s3-delete-objects", "POST", "/{bucket}", {"bucket": "photos"}, "delete=",
     "<Delete><Object><Key>2026/q4.txt</Key></Object></Delete>"),
    ("s3-delete-bucket", "DELETE", "/{bucket}", {"bucket": "photos"}, "", None),
    # Only the function with every route has these.
    ("is-admin", "GET", "/is-admin", {}, "", None),
    ("account-info", "GET", "/accountinfo", {}, "", None),
    ("sts-get-caller-identity", "POST", "/", {}, "", "Action=GetCallerIdentity&Version=2011-06-15"),
    # Pages have no signature.
    ("openapi", "GET", "/openapi.json", {}, "", None),
    ("openapi-by-head", "HEAD", "/openapi.json", {}, "", None),
    ("health", "GET", "/health", {}, "", None),
    ("health-by-head", "HEAD", "/health", {}, "", None),
    ("health-live", "GET", "/health/live", {}, "", None),
    ("health-live-by-head", "HEAD", "/health/live", {}, "", None),
    ("health-ready", "GET", "/health/ready", {}, "", None),
    ("health-ready-by-head", "HEAD", "/health/ready", {}, "", None),
    ("health-cluster", "GET", "/health/cluster", {}, "", None),
    ("health-cluster-by-head", "HEAD", "/health/cluster", {}, "", None),
    ("health-cluster-read", "GET", "/health/cluster/read", {}, "", None),
    ("health-cluster-read-by-head", "HEAD", "/health/cluster/read", {}, "", None),
    ("health-of-minio", "GET", "/minio/health", {}, "", None),
    ("health-of-minio-by-head", "HEAD", "/minio/health", {}, "", None),
    ("health-of-minio-live", "GET", "/minio/health/live", {}, "", None),
    ("health-of-minio-live-by-head", "HEAD", "/minio/health/live", {}, "", None),
    ("health-of-minio-ready", "GET", "/minio/health/ready", {}, "", None),
    ("health-of-minio-ready-by-head", "HEAD", "/minio/health/ready", {}, "", None),
    ("health-of-minio-cluster", "GET", "/minio/health/cluster", {}, "", None),
    ("health-of-minio-cluster-by-head", "HEAD", "/minio/health/cluster", {}, "", None),
    ("health-of-minio-cluster-read", "GET", "/minio/health/cluster/read", {}, "", None),
    ("health-of-minio-cluster-read-by-head", "HEAD", "/minio/health/cluster/read", {}, "", None),
]
# The operations that the samples of AWS KMS's API name in a header, by route.
AWS_TARGETS = {"/aws": "TrentService.UpdateKeyDescription", "/aws/data": "TrentService.GenerateDataKey"}
# Which routes there are: `make template` writes the lists. A route without a sample gets a plain event.
ROUTES = {name: [tuple(route) for route in routes] for name, routes in json.loads((HERE / "routes.json").read_text()).items()}

# Whose key nobody has any more.
CERTIFICATE = (HERE.parent / "shared/auth/src/certificate/tests/p256.pem").read_text()
IDENTITY = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22"
OTHER = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f"
KES_CONTEXT = "eyJiYWNrdXBzIjoiYmFja3Vwcy9xNC50YXIifQ=="
# From KES's own sealing of old; it opens under no key of anybody's.
KES_BLOB = "lbFBRVMyNTYtR0NNX1NIQTI1NtkgNzQ4ZTBmYzM="

# name, method, path, body, of KES's API: methods as its SDK for Go sends them. And of the pages beside it. No key has the name
# of one that SAMPLES make, for all may be sent to one deployment.
KES_ROUTES = [
    ("health-live", "GET", "/health/live", None),
    ("health-ready", "GET", "/health/ready", None),
    ("openapi", "GET", "/openapi.json", None),
    ("version", "GET", "/version", None),
    ("ready", "GET", "/v1/ready", None),
    ("status", "GET", "/v1/status", None),
    ("metrics", "GET", "/v1/metrics", None),
    ("api", "GET", "/v1/api", None),
    ("create-key", "POST", "/v1/key/create/backups", None),
    ("import-key", "POST", "/v1/key/import/archive",
     {"key": "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=", "cipher": "AES256"}),
    ("describe-key", "GET", "/v1/key/describe/backups", None),
    ("list-keys", "GET", "/v1/key/list/back*", None),
    ("generate-key", "POST", "/v1/key/generate/backups", {"context": KES_CONTEXT}),
    ("encrypt-key", "POST", "/v1/key/encrypt/backups", {"plaintext": "aGVsbG8sIHdvcmxk", "context": KES_CONTEXT}),
    ("decrypt-key", "POST", "/v1/key/decrypt/backups", {"ciphertext": KES_BLOB, "context": KES_CONTEXT}),
    ("bulk-decrypt-key", "POST", "/v1/key/bulk/decrypt/backups", [{"ciphertext": KES_BLOB, "context": KES_CONTEXT}]),
    ("hmac-key", "PUT", "/v1/key/hmac/backups", {"message": "cm9vdCBhY2Nlc3Mga2V5"}),
    ("write-policy", "POST", "/v1/policy/write/minio",
     {"allow": {"/v1/key/generate/backups": {}, "/v1/key/decrypt/backups": {}}, "deny": {}}),
    ("assign-policy", "POST", "/v1/policy/assign/minio", {"identity": IDENTITY}),
    ("describe-policy", "GET", "/v1/policy/describe/minio", None),
    ("read-policy", "GET", "/v1/policy/read/minio", None),
    ("list-policies", "GET", "/v1/policy/list/*", None),
    ("assign-identity", "POST", f"/v1/identity/assign/minio/{OTHER}", None),
    ("describe-identity", "GET", f"/v1/identity/describe/{IDENTITY}", None),
    ("describe-self", "GET", "/v1/identity/self/describe", None),
    ("list-identities", "GET", "/v1/identity/list/*", None),
    ("forget-identity", "DELETE", f"/v1/identity/forget/{IDENTITY}", None),
    ("delete-identity", "DELETE", f"/v1/identity/delete/{OTHER}", None),
    ("delete-policy", "DELETE", "/v1/policy/delete/minio", None),
    ("delete-key", "DELETE", "/v1/key/delete/backups", None),
]
KES_HOST = "kes.example.com"


def whole(route):
    """The route with its prefix; S3's, STS's and pages have none, and MinIO's and AWS KMS's their own."""
    has_own = route in ("/", "/openapi.json", *AWS_TARGETS) or route.startswith(("/{bucket}", "/health", "/minio/"))
    return route if has_own else PREFIX + route


def filled(route, parameters):
    """The path that a client asks for."""
    path = whole(route)
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}+}}", value)
    return path


def samples():
    """Every sample, and a plain one of each route that has none."""
    known = {(method, whole(route)) for _, method, route, *_ in SAMPLES}
    routes = ROUTES["http-api"] + ROUTES["one-function"]
    strange = known - set(routes)
    if strange:
        sys.exit(f"no route, see routes.json: {sorted(strange)}")
    found = list(SAMPLES)
    for method, route in routes:
        if (method, route) not in known:
            words = route.removeprefix(PREFIX).replace("{", "").replace("}", "").strip("/").replace("/", "-")
            body = None if method in ("GET", "HEAD", "DELETE") else {}
            route = route.removeprefix(PREFIX)
            found.append((f"{method.lower()}-{words}", method, route, {"key_id": "reports", "bucket": "photos"}, "", body))
    return found


def of_http_api(sample):
    """Whether the HTTP API has the sample's route."""
    _, method, route, *_ = sample
    return (method, whole(route)) in ROUTES["http-api"]


def is_page(path):
    return "/health" in path or path.endswith("/openapi.json")


def service_of(method, path):
    """The service that a client of this path signs for."""
    if target(path):
        return "kms"
    return "sts" if (method, path) == ("POST", "/") else "execute-api"


def target(path):
    """The operation that a header names, for AWS KMS's API, also below a stage."""
    return AWS_TARGETS.get(path.removeprefix("/prod"))


def signed(method, host, path, query, body, key, now):
    """The headers that sign a request: Signature Version 4 over the host, the time, the body and the operation."""
    key_id, secret, token = key
    time = now.strftime("%Y%m%dT%H%M%SZ")
    operation = target(path)
    scope = f"{time[:8]}/{REGION}/{service_of(method, path)}/aws4_request"
    headers = {"host": host, "x-amz-date": time}
    if operation:
        headers["x-amz-target"] = operation
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    pairs = sorted((quote(k, safe="-._~"), quote(v, safe="-._~")) for k, v in parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([
        method,
        quote(path, safe="/-._~"),
        "&".join(f"{k}={v}" for k, v in pairs),
        *(f"{name}:{headers[name]}" for name in sorted(headers)),
        "",
        names,
        hashlib.sha256(body).hexdigest(),
    ])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = f"AWS4{secret}".encode()
    for part in [*scope.split("/"), to_sign]:
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    authorization = f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature.hex()}"
    return {**headers, "authorization": authorization}


def request_headers(method, host, path, query, body):
    """What arrives behind a front, in lower case: the client's headers and those that the front adds."""
    headers = {
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "user-agent": AGENT,
        "x-amzn-trace-id": TRACE,
        "x-forwarded-for": CLIENT,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        "host": host,
    }
    if not is_page(path):
        headers.update(signed(method, host, path, query, body or b"", EXAMPLE_KEY, EXAMPLE_TIME))
    if body is not None:
        headers["content-length"] = str(len(body))
        kinds = {b"<": "application/xml", b"{": "application/json", b"A": "application/x-www-form-urlencoded"}
        headers["content-type"] = kinds.get(body[:1], "text/plain")
        if target(path):
            headers["content-type"] = "application/x-amz-json-1.1"
    return dict(sorted(headers.items()))


def encoded(body):
    if body is None or isinstance(body, str):
        return body and body.encode()
    return json.dumps(body, separators=(",", ":")).encode()


def log_time():
    return EXAMPLE_TIME.strftime("%d/%b/%Y:%H:%M:%S +0000")


def epoch_millis():
    return int(EXAMPLE_TIME.timestamp() * 1000)


def version_two(method, route_key, path, parameters, query, body, host, account, api):
    """Payload format 2.0: HTTP APIs and function URLs."""
    body = encoded(body)
    event = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": request_headers(method, host, path, query, body),
    }
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    event["requestContext"] = {
        "accountId": account,
        "apiId": api,
        "domainName": host,
        "domainPrefix": api,
        "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": CLIENT, "userAgent": AGENT},
        "requestId": "Xk3aWhZyoAMESLw=" if account == ACCOUNT else REQUEST,
        "routeKey": route_key,
        "stage": "$default",
        "time": log_time(),
        "timeEpoch": epoch_millis(),
    }
    if parameters:
        event["pathParameters"] = parameters
    if body is not None:
        event["body"] = body.decode()
    event["isBase64Encoded"] = False
    return event


def http_api(method, route, parameters, query, body):
    path = filled(route, parameters)
    host = f"{API}.execute-api.{REGION}.amazonaws.com"
    return version_two(method, f"{method} {whole(route)}", path, parameters, query, body, host, ACCOUNT, API)


def function_url(method, route, parameters, query, body):
    path = filled(route, parameters)
    host = f"{URL_ID}.lambda-url.{REGION}.on.aws"
    return version_two(method, "$default", path, {}, query, body, host, "anonymous", URL_ID)


# How API Gateway's REST APIs spell the headers of a client that speaks HTTP/1.1: as they were sent.
SPELLINGS = {
    "accept": "Accept", "accept-encoding": "Accept-Encoding", "authorization": "Authorization", "host": "Host",
    "content-type": "Content-Type", "user-agent": "User-Agent", "x-amz-date": "X-Amz-Date",
    "x-amz-security-token": "X-Amz-Security-Token", "x-amz-target": "X-Amz-Target", "x-amzn-trace-id": "X-Amzn-Trace-Id",
    "x-forwarded-for": "X-Forwarded-For", "x-forwarded-port": "X-Forwarded-Port",
    "x-forwarded-proto": "X-Forwarded-Proto",
}


def rest_api(method, route, parameters, query, body):
    """Payload format 1.0, behind a stage of a REST API. Signatures cover the stage."""
    body = encoded(body)
    path = filled(route, parameters)
    host = f"{API}.execute-api.{REGION}.amazonaws.com"
    headers = request_headers(method, host, "/prod" + path, query, body)
    headers = {SPELLINGS[name]: value for name, value in headers.items() if name in SPELLINGS}
    pairs = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        pairs.setdefault(name, []).append(value)
    nobody = ["accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
              "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn"]
    return {
        "resource": whole(route),
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in pairs.items()} or None,
        "multiValueQueryStringParameters": pairs or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "r3s0rc",
            "resourcePath": whole(route),
            "operationName": None,
            "httpMethod": method,
            "extendedRequestId": "Xk3aWGoGIAMFwTQ=",
            "requestTime": log_time(),
            "path": "/prod" + path,
            "accountId": ACCOUNT,
            "protocol": "HTTP/1.1",
            "stage": "prod",
            "domainPrefix": API,
            "requestTimeEpoch": epoch_millis(),
            "requestId": REQUEST,
            "identity": {**dict.fromkeys(nobody), "sourceIp": CLIENT, "userAgent": AGENT},
            "domainName": host,
            "deploymentId": "d3pl0y",
            "apiId": API,
        },
        "body": None if body is None else body.decode(),
        "isBase64Encoded": False,
    }


def alb(method, route, parameters, query, body):
    """An application load balancer's, in its default mode: one value for each name."""
    body = encoded(body)
    path = filled(route, parameters)
    group = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/keyway/0123456789abcdef"
    return {
        "requestContext": {"elb": {"targetGroupArn": group}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": dict(parse_qsl(query, keep_blank_values=True)),
        "headers": request_headers(method, "kms.example.com", path, query, body),
        "body": "" if body is None else body.decode(),
        "isBase64Encoded": False,
    }


def kes_headers(body):
    headers = {
        "Accept-Encoding": "gzip",
        "Host": KES_HOST,
        "User-Agent": "Go-http-client/2.0",
        "X-Amzn-Trace-Id": TRACE,
        "X-Forwarded-For": CLIENT,
        "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https",
    }
    if body is not None:
        headers["Content-Type"] = "application/json"
    return headers


def kes_resource(path):
    """The resource of the template's REST API, and what stands in its parameter."""
    for group in ("/v1/key/bulk/decrypt", "/v1/key/generate", "/v1/key/encrypt", "/v1/key/decrypt", "/v1/key/hmac"):
        if path.startswith(f"{group}/"):
            return f"{group}/{{name+}}", {"name": path[len(group) + 1:]}
    for group in ("/v1/key", "/v1/policy", "/v1/identity", "/health"):
        if path.startswith(f"{group}/"):
            return f"{group}/{{route+}}", {"route": path[len(group) + 1:]}
    return path, None


def kes_rest_api(method, path, body):
    """Of a REST API behind a domain that demands certificates, which is where the one of the client stands."""
    event = rest_api(method, path, {}, "", body)
    event["path"] = event["requestContext"]["path"] = path
    event["resource"], event["pathParameters"] = kes_resource(path)
    headers = kes_headers(body)
    event["headers"] = headers
    event["multiValueHeaders"] = {name: [value] for name, value in headers.items()}
    context = event["requestContext"]
    context.update(resourcePath=event["resource"], stage="kes", domainName=KES_HOST, domainPrefix="kes",
                   protocol="HTTP/2.0")
    context["identity"]["userAgent"] = headers["User-Agent"]
    context["identity"]["clientCert"] = {
        "clientCertPem": CERTIFICATE,
        "subjectDN": "CN=p256",
        "issuerDN": "CN=p256",
        "serialNumber": "5e:34:de:5b:19:ef:8d:98:a9:e6:ad:8e:af:57:2e:75:f0:1d:54:02",
        "validity": {"notBefore": "Nov 22 09:18:05 2026 GMT", "notAfter": "Oct 29 09:18:05 2126 GMT"},
    }
    return event


def kes_alb(method, path, body):
    """Of a load balancer that verifies certificates, in its mode with all values of a header. It leaves `+` as it is."""
    event = alb(method, path, {}, "", body)
    headers = {name.lower(): value for name, value in kes_headers(body).items()}
    headers["x-amzn-mtls-clientcert-leaf"] = quote(CERTIFICATE, safe="+=/")
    del event["headers"], event["queryStringParameters"]
    event["path"] = path
    event["multiValueHeaders"] = {name: [value] for name, value in sorted(headers.items())}
    event["multiValueQueryStringParameters"] = {}
    return event


def schedule():
    """EventBridge's, of a rule that runs by the clock."""
    return {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": EXAMPLE_TIME.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/keyway-JanitorFunctionPeriodically-EXAMPLE"],
        "detail": {},
    }


def events():
    """Every file by its name."""
    files = {}
    for sample in samples():
        name, *request = sample
        if of_http_api(sample):
            files[f"http-api/{name}.json"] = http_api(*request)
            files[f"rest-api/{name}.json"] = rest_api(*request)
        files[f"function-url/{name}.json"] = function_url(*request)
        files[f"alb/{name}.json"] = alb(*request)
    for name, *request in KES_ROUTES:
        files[f"kes-rest-api/{name}.json"] = kes_rest_api(*request)
        files[f"kes-alb/{name}.json"] = kes_alb(*request)
    files["schedule/janitor.json"] = schedule()
    # For the suite.
    files["order.json"] = {
        "http-api": [sample[0] for sample in samples() if of_http_api(sample)],
        "function-url": [sample[0] for sample in samples()],
        "kes-rest-api": [name for name, *_ in KES_ROUTES],
    }
    return files


def signed_again(event):
    """The same event, as if it had been sent now by the holder of the environment's access key."""
    context = event["requestContext"]
    if "http" in context:
        method, path, query = context["http"]["method"], event["rawPath"], event["rawQueryString"]
    else:
        method, path = event["httpMethod"], context.get("path", event["path"])
        query = "&".join(f"{quote(k, safe='-._~')}={quote(v, safe='-._~')}"
                         for k, v in (event["queryStringParameters"] or {}).items())
    headers = event["headers"]
    host = next(value for name, value in headers.items() if name.lower() == "host")
    body = event.get("body") or ""
    body = base64.b64decode(body) if event["isBase64Encoded"] else body.encode()
    if is_page(path):
        return event
    key = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], os.environ.get("AWS_SESSION_TOKEN"))
    for name, value in signed(method, host, path, query, body, key,
                              datetime.datetime.now(datetime.timezone.utc)).items():
        name = SPELLINGS[name] if "multiValueHeaders" in event else name
        headers[name] = value
        if "multiValueHeaders" in event:
            event["multiValueHeaders"][name] = [value]
    return event


def text(event):
    return json.dumps(event, indent=2, ensure_ascii=False) + "\n"


def main(arguments):
    if arguments[:1] == ["--sign"] and len(arguments) == 2:
        print(text(signed_again(json.loads(pathlib.Path(arguments[1]).read_text()))), end="")
        return 0
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = {HERE / name: text(event) for name, event in events().items()}
    if arguments:
        paths = [*HERE.glob("*/*.json"), *HERE.glob("order.json")]
        found = {path: path.read_text() for path in paths}
        wrong = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        for path in wrong:
            print(f"not as make_events.py makes it: {path.relative_to(HERE)}", file=sys.stderr)
        return 1 if wrong else 0
    for path, content in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
