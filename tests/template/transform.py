"""What CloudFormation would make of template.yaml, without an account.

    transform.py TEMPLATE < SETS_OF_PARAMETERS

Reads a JSON list of sets of parameters. Prints, for each: the rules that it breaks, and else the resources and outputs
as AWS's own transformation of serverless templates makes them, with conditions and parameters put in. Values
that only a deployment knows, such as an ARN, stay as they are written. Needs aws-sam-translator.
"""

import copy
import json
import logging
import pathlib
import sys

from samtranslator.translator.transform import transform

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/deployment"))
from parameters import Values, broken_rules, read  # noqa: E402

class NoManagedPolicies:
    """The template names none, and looking them up needs an account."""

    def load(self):
        return {}


def deployment(template, given):
    values = Values(template, given)
    broken = broken_rules(template, values)
    if broken:
        return {"broken_rules": broken, "resources": {}, "outputs": {}}
    template = copy.deepcopy(template)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # `sam deploy` would have put the package here.
            resource["Properties"]["CodeUri"] = "s3://packages/function"
    made = transform(template, dict(given), NoManagedPolicies())
    values.conditions = made["Conditions"]
    return {"broken_rules": [], "resources": values.made(made["Resources"]), "outputs": values.made(made["Outputs"])}


def console(template):
    """Returns the template's parameters, and the groups in which the console shows them."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return {"parameters": list(template["Parameters"]), "groups": [group["Parameters"] for group in groups]}


def main():
    # It would log the metrics that it cannot send.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    template = read(pathlib.Path(sys.argv[1]))
    made = [deployment(template, given) for given in json.load(sys.stdin)]
    json.dump({"deployments": made, "console": console(template)}, sys.stdout)


if __name__ == "__main__":
    main()
