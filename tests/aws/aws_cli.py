"""AWS's CLI of version 2 for the drills, played by version 1, and what the stand-ins cannot do.

- Version 2 takes bytes in JSON as base64, as it prints them; version 1 would encode them again.
- DynamoDB Local has no point-in-time recovery: the restored table is a copy of the source as it is now.
"""

import base64
import json
import pathlib
import sys

import boto3
from awscli.clidriver import main

FLAGS = {"--use-latest-restorable-time"}


def options(arguments):
    found, rest = {}, iter(arguments)
    for name in rest:
        found[name.removeprefix("--")] = True if name in FLAGS else next(rest)
    return found


def decoded(node):
    if isinstance(node, dict):
        return {
            name: base64.b64decode(value) if name == "B" and isinstance(value, str) else decoded(value)
            for name, value in node.items()
        }
    return [decoded(value) for value in node] if isinstance(node, list) else node


def put_item(dynamodb, given):
    item = json.loads(pathlib.Path(given["item"].removeprefix("file://")).read_text())
    condition = given["condition-expression"]
    try:
        dynamodb.put_item(TableName=given["table-name"], Item=decoded(item), ConditionExpression=condition)
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return "the condition failed"
    return 0


def restore(dynamodb, given):
    source = dynamodb.describe_table(TableName=given["source-table-name"])["Table"]
    target = given["target-table-name"]
    dynamodb.create_table(
        TableName=target,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=source["AttributeDefinitions"],
        KeySchema=source["KeySchema"],
    )
    dynamodb.get_waiter("table_exists").wait(TableName=target, WaiterConfig={"Delay": 1})
    for page in dynamodb.get_paginator("scan").paginate(TableName=source["TableName"]):
        for item in page["Items"]:
            dynamodb.put_item(TableName=target, Item=item)
    return 0


PLAYED = {
    ("dynamodb", "put-item"): put_item,
    ("dynamodb", "restore-table-to-point-in-time"): restore,
}
played = PLAYED.get(tuple(sys.argv[1:3]))
if played is None:
    sys.exit(main())
given = options(sys.argv[3:])
sys.exit(played(boto3.client("dynamodb", region_name=given["region"]), given))
