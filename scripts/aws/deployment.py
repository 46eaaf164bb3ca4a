"""Makes the table and the secrets of a deployment as the template does: deployment.py NAME

The table is NAME, the secrets are NAME-root-keyring, which is empty, and NAME-root-access-key. What exists stays: the services
may outlive the script that calls this one.
"""

import sys

import boto3

name = sys.argv[1]
dynamodb, secrets = boto3.client("dynamodb"), boto3.client("secretsmanager")
try:
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("kind", "id")],
        KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
    )
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
except dynamodb.exceptions.ResourceInUseException:
    pass
root = '{"access_key_id": "test-root", "secret_access_key": "test-root-secret"}'
for secret in [{"Name": f"{name}-root-keyring"}, {"Name": f"{name}-root-access-key", "SecretString": root}]:
    try:
        secrets.create_secret(**secret)
    except secrets.exceptions.ResourceExistsException:
        pass
