"""Makes a change set of template.yaml for each set of parameters, at a service that plays CloudFormation.

    change_sets.py TEMPLATE < SETS_OF_PARAMETERS

Prints a JSON list: for each set, the resources that the change set would add, with their types, or why there is none. No
change set is executed, and the functions' packages are an empty one, so nothing need be built. Needs boto3.
"""

import io
import json
import pathlib
import re
import sys
import uuid
import zipfile

import boto3
from botocore.exceptions import WaiterError

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]


def empty_package():
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as content:
        content.writestr("bootstrap", "")
    return package.getvalue()


def upload(template):
    """Returns the template's address, with its functions' packages beside it."""
    bucket = f"keyway-{uuid.uuid4()}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="function.zip", Body=empty_package())
    packaged, count = re.subn(r"CodeUri: functions/\S+", f"CodeUri: s3://{bucket}/function.zip", template)
    if count == 0:
        raise ValueError("the template has no functions")
    # LocalStack knows no resources that SAM is still to make.
    for api, stage in {"Api": "$default", "KesApi": "kes"}.items():
        packaged = packaged.replace(f"!Ref {api}.Stage", stage)
    s3.put_object(Bucket=bucket, Key="template.yaml", Body=packaged.encode())
    return f"{s3.meta.endpoint_url}/{bucket}/template.yaml"


def change_set(cloudformation, address, parameters):
    stack = f"keyway-{uuid.uuid4().hex[:16]}"
    named = {"StackName": stack, "ChangeSetName": "first"}
    cloudformation.create_change_set(
        **named,
        ChangeSetType="CREATE",
        TemplateURL=address,
        Capabilities=CAPABILITIES,
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    waiter = cloudformation.get_waiter("change_set_create_complete")
    try:
        waiter.wait(**named, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    except WaiterError:
        pass
    described = cloudformation.describe_change_set(**named)
    made = {"status": described["Status"], "reason": described.get("StatusReason", ""), "resources": {}}
    while True:
        for change in described.get("Changes", []):
            resource = change["ResourceChange"]
            made["resources"][resource["LogicalResourceId"]] = resource["ResourceType"]
        if not described.get("NextToken"):
            break
        described = cloudformation.describe_change_set(**named, NextToken=described["NextToken"])
    cloudformation.delete_stack(StackName=stack)
    return made


def main():
    cloudformation = boto3.client("cloudformation")
    address = upload(pathlib.Path(sys.argv[1]).read_text())
    json.dump([change_set(cloudformation, address, parameters) for parameters in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
