"""A stack of Keyway, as CloudFormation and Lambda describe it."""

import os
import sys

import boto3
import botocore.exceptions

# The alias that every front calls, which belongs to the stack.
LIVE = "live"
# The alias that a deployment leaves at the version that was live before it.
BEFORE = "before"
# How many versions of each function a deployment leaves.
KEPT = 5


def stop(program, text):
    """Ends the program. Every line but the first is indented, so that it is seen to belong to it."""
    sys.exit(f"{program}: " + text.replace("\n", "\n  "))


def session_of(options):
    """Returns AWS's settings of a command. boto3 itself reads AWS_DEFAULT_REGION, but not AWS_REGION."""
    region = options.region or os.environ.get("AWS_REGION") or None
    return boto3.Session(profile_name=options.profile, region_name=region)


def caller(program, session):
    """Returns the account and identity of the credentials, which every command needs."""
    if session.region_name is None:
        stop(program, "no region is set\nSet AWS_REGION, for example AWS_REGION=us-east-1, or give --region.")
    try:
        return session.client("sts").get_caller_identity()
    except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError) as error:
        stop(program, f"AWS cannot be reached: {error}")
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        stop(
            program,
            f"AWS accepts no credentials: {error}\n"
            "Sign in (aws sso login, aws configure), or name a profile in AWS_PROFILE.",
        )


class Stack:
    """A stack that exists, or the one that will have this name."""

    def __init__(self, session, name):
        self.name = name
        self.lambda_ = session.client("lambda")
        cloudformation = session.client("cloudformation")
        try:
            self.found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except botocore.exceptions.ClientError as error:
            if "does not exist" not in error.response["Error"]["Message"]:
                raise
            self.found = {}
        self.resources = {}
        if self.exists:
            pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
            self.resources = {
                resource["LogicalResourceId"]: (resource["ResourceType"], resource["PhysicalResourceId"])
                for page in pages
                for resource in page["StackResourceSummaries"]
                if resource.get("PhysicalResourceId") and not resource["ResourceStatus"].startswith("DELETE")
            }

    @property
    def status(self):
        return self.found.get("StackStatus", "REVIEW_IN_PROGRESS")

    @property
    def exists(self):
        """A change set that was never executed leaves a stack in review, which has nothing yet."""
        return self.status != "REVIEW_IN_PROGRESS"

    @property
    def parameters(self):
        return {one["ParameterKey"]: one["ParameterValue"] for one in self.found.get("Parameters", [])}

    def must_be_at_rest(self, program):
        if self.status.endswith("_IN_PROGRESS") and self.exists:
            stop(
                program,
                f"the stack {self.name} is being changed ({self.status})\n"
                "Wait until it is done, or go back to the state before:\n"
                f"aws cloudformation cancel-update-stack --stack-name {self.name}",
            )
        if self.status == "ROLLBACK_COMPLETE":
            stop(
                program,
                f"the first deployment of the stack {self.name} failed, and such a stack cannot be updated\n"
                f"Delete it (sam delete --stack-name {self.name}), and deploy again.",
            )

    def of_type(self, kind):
        return {name: physical for name, (found, physical) in self.resources.items() if found == kind}

    def functions(self):
        """Returns the functions' names, each by the start of its resources' names: Keys, Datakey."""
        functions = self.of_type("AWS::Lambda::Function")
        return {name.removesuffix("Function"): physical for name, physical in functions.items()}

    def deployed(self):
        """Returns the version of each function that the stack deployed last; none where it published none."""
        versions = self.of_type("AWS::Lambda::Version")
        return {name.partition("Version")[0]: int(arn.rpartition(":")[2]) for name, arn in versions.items()}

    def alias(self, function, name):
        """Returns an alias of a function; none if it has none."""
        try:
            return self.lambda_.get_alias(FunctionName=function, Name=name)
        except self.lambda_.exceptions.ResourceNotFoundException:
            return None

    def live(self):
        """Returns the version that each function's alias names."""
        aliases = {name: self.alias(function, LIVE) for name, function in self.functions().items()}
        return {name: alias["FunctionVersion"] for name, alias in aliases.items() if alias}

    def remember(self, live):
        """Points the other alias to the versions that were live before, where others are live now."""
        now = self.live()
        for name, function in self.functions().items():
            if name not in live or live[name] in ("$LATEST", now.get(name)):
                continue
            point = self.lambda_.update_alias if self.alias(function, BEFORE) else self.lambda_.create_alias
            point(FunctionName=function, Name=BEFORE, FunctionVersion=live[name])

    def versions(self, function):
        """Returns the descriptions of a function's published versions, by their numbers, oldest first."""
        pages = self.lambda_.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        found = [version for page in pages for version in page["Versions"] if version["Version"] != "$LATEST"]
        return dict(sorted((int(version["Version"]), version.get("Description", "")) for version in found))

    def rolled_back(self):
        """Returns the functions whose alias does not name the version that the stack deployed last."""
        deployed = self.deployed()
        return [name for name, version in self.live().items() if version != str(deployed.get(name))]

    def architecture(self):
        """Returns what the functions are deployed for; none if there are none."""
        for function in self.functions().values():
            return self.lambda_.get_function_configuration(FunctionName=function).get("Architectures", ["x86_64"])[0]
        return None

    def reserved(self):
        """Returns how many concurrent executions the functions reserve now."""
        return sum(
            self.lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions", 0)
            for function in self.functions().values()
        )

    def prune(self):
        """Deletes all but the newest versions, never one that an alias or the stack names. Returns how many."""
        deployed, deleted = self.deployed(), 0
        for name, function in self.functions().items():
            aliases = self.lambda_.list_aliases(FunctionName=function)["Aliases"]
            needed = {deployed.get(name), *(int(alias["FunctionVersion"].replace("$LATEST", "0")) for alias in aliases)}
            for version in list(self.versions(function))[:-KEPT]:
                if version not in needed:
                    self.lambda_.delete_function(FunctionName=function, Qualifier=str(version))
                    deleted += 1
        return deleted
