"""What parameters make of template.yaml: rules checked, conditions decided, parameters put in.

Values that only a deployment knows, such as an ARN, stay as they are written. Needs aws-sam-translator.
"""

import re

from samtranslator.yaml_helper import yaml_parse

NOTHING = object()


def read(path):
    """Returns the template as a tree."""
    return yaml_parse(path.read_text())


class Values:
    """Parameters and conditions of one deployment."""

    def __init__(self, template, given):
        self.conditions = template.get("Conditions", {})
        self.mappings = template.get("Mappings", {})
        self.parameters = {}
        unknown = given.keys() - template["Parameters"].keys()
        if unknown:
            raise ValueError(f"there is no parameter {unknown}")
        for name, parameter in template["Parameters"].items():
            value = str(given.get(name, parameter.get("Default")))
            allowed = [str(one) for one in parameter.get("AllowedValues", [value])]
            if value not in allowed or not re.search(parameter.get("AllowedPattern", ""), value):
                raise ValueError(f"{name} cannot be {value!r}")
            self.parameters[name] = value

    def holds(self, expression):
        (function, operands), = expression.items()
        if function == "Condition":
            return self.holds(self.conditions[operands])
        if function == "Fn::Equals":
            left, right = (str(self.put_in(operand)) for operand in operands)
            return left == right
        if function == "Fn::Not":
            return not self.holds(operands[0])
        if function == "Fn::And":
            return all(self.holds(operand) for operand in operands)
        if function == "Fn::Or":
            return any(self.holds(operand) for operand in operands)
        raise ValueError(f"{function} is no condition")

    def put_in(self, node):
        """Returns the node with conditions decided and parameters put in."""
        if isinstance(node, list):
            return [value for value in map(self.put_in, node) if value is not NOTHING]
        if not isinstance(node, dict):
            return node
        if node == {"Ref": "AWS::NoValue"}:
            return NOTHING
        if len(node) == 1:
            (function, operand), = node.items()
            if function == "Fn::If":
                name, if_true, if_false = operand
                return self.put_in(if_true if self.holds({"Condition": name}) else if_false)
            if function == "Ref" and operand in self.parameters:
                return self.parameters[operand]
            if function == "Fn::FindInMap":
                mapping, first, second = operand
                return self.mappings[mapping][first][second]
            if function == "Fn::Sub" and isinstance(operand, str):
                text = re.sub(r"\$\{(\w+)}", lambda name: self.parameters.get(name[1], name[0]), operand)
                return {"Fn::Sub": text} if "${" in text else text
        return {name: value for name, inner in node.items() if (value := self.put_in(inner)) is not NOTHING}

    def made(self, section):
        """Returns the entries of a section that these conditions make."""
        return {
            name: self.put_in({key: value for key, value in entry.items() if key != "Condition"})
            for name, entry in section.items()
            if "Condition" not in entry or self.holds({"Condition": entry["Condition"]})
        }


def broken_rules(template, values):
    return [
        assertion["AssertDescription"]
        for rule in template.get("Rules", {}).values()
        if values.holds(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not values.holds(assertion["Assert"])
    ]


def reserved(template, given):
    """Returns the concurrent executions that each function of the stack reserves, by the function's resource."""
    functions = Values(template, given).made(template["Resources"])
    return {
        name: int(function["Properties"]["ReservedConcurrentExecutions"])
        for name, function in functions.items()
        if function["Type"] == "AWS::Serverless::Function" and "ReservedConcurrentExecutions" in function["Properties"]
    }
