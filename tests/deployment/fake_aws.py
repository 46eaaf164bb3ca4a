"""Answers the calls of scripts/deploy and scripts/rollback on loopback, for one stack whose state a test gives.

    fake_aws.py STATE

STATE is a JSON file: {"caller": false, "quota": [limit, unreserved], "stack": STATUS or null, "parameters": {...},
"functions": {NAME: {"architecture", "reserved", "deployed", "versions": {NUMBER: RELEASE}, "aliases": {NAME: NUMBER}}}}.
Prints its address. It reads the file for each call and writes it after each change. It knows no other service and no
other call.
"""

import json
import pathlib
import re
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILE = pathlib.Path(sys.argv[1])
STATE = {}
ARN = "arn:aws:lambda:us-east-1:123456789012:function:"
XML = "https://cloudformation.amazonaws.com/doc/2010-05-15/"


def summary(logical, kind, physical):
    return (
        f"<member><LogicalResourceId>{logical}</LogicalResourceId><ResourceType>{kind}</ResourceType>"
        f"<PhysicalResourceId>{physical}</PhysicalResourceId><ResourceStatus>UPDATE_COMPLETE</ResourceStatus>"
        "<LastUpdatedTimestamp>2026-11-30T12:00:00Z</LastUpdatedTimestamp></member>"
    )


def query(form):
    """Returns status and body of a call of STS or CloudFormation."""
    action, error = form["Action"], "<ErrorResponse><Error><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
    if action == "GetCallerIdentity":
        if not STATE.get("caller", True):
            return 403, error.format("ExpiredToken", "The security token included in the request is expired")
        what = "<Arn>arn:aws:iam::123456789012:user/operator</Arn><UserId>U</UserId><Account>123456789012</Account>"
    elif action == "DescribeStacks":
        if not STATE.get("stack"):
            return 400, error.format("ValidationError", f"Stack with id {form['StackName']} does not exist")
        members = "".join(
            f"<member><ParameterKey>{name}</ParameterKey><ParameterValue>{value}</ParameterValue></member>"
            for name, value in STATE.get("parameters", {}).items()
        )
        what = (
            f"<Stacks><member><StackName>{form['StackName']}</StackName><StackStatus>{STATE['stack']}</StackStatus>"
            f"<CreationTime>2026-11-30T12:00:00Z</CreationTime><Parameters>{members}</Parameters></member></Stacks>"
        )
    elif action == "ListStackResources":
        members = []
        for logical, function in STATE["functions"].items():
            members.append(summary(f"{logical}Function", "AWS::Lambda::Function", f"keyway-{logical}"))
            if "deployed" in function:
                arn = f"{ARN}keyway-{logical}:{function['deployed']}"
                members.append(summary(f"{logical}Version0123456789ab", "AWS::Lambda::Version", arn))
        what = f"<StackResourceSummaries>{''.join(members)}</StackResourceSummaries>"
    else:
        return 400, error.format("InvalidAction", action)
    return 200, f'<{action}Response xmlns="{XML}"><{action}Result>{what}</{action}Result></{action}Response>'


def lambda_(method, path, arguments, body):
    """Returns status and body of a call of Lambda."""
    if path.endswith("/account-settings/") or path.endswith("/account-settings"):
        limit, unreserved = STATE["quota"]
        return 200, {"AccountLimit": {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": unreserved}}
    _, name, rest = re.fullmatch(r"/(\d{4}-\d\d-\d\d)/functions/keyway-(\w+)(/.*)?", path).groups()
    function, rest = STATE["functions"][name], rest or ""
    aliases, versions = function.setdefault("aliases", {}), function.setdefault("versions", {})
    if rest == "/configuration":
        return 200, {"Architectures": [function.get("architecture", "arm64")]}
    if rest == "/concurrency":
        return 200, {"ReservedConcurrentExecutions": function["reserved"]} if "reserved" in function else {}
    if rest == "/versions":
        found = [{"Version": "$LATEST"}, *({"Version": key, "Description": value} for key, value in versions.items())]
        return 200, {"Versions": found}
    if rest == "" and method == "DELETE":
        assert arguments["Qualifier"] not in aliases.values()
        del versions[arguments["Qualifier"]]
        return 204, None
    if rest == "/aliases" and method == "GET":
        return 200, {"Aliases": [{"Name": key, "FunctionVersion": value} for key, value in aliases.items()]}
    alias = body["Name"] if rest == "/aliases" else rest.removeprefix("/aliases/")
    if method in ("POST", "PUT"):
        assert (method == "PUT") == (alias in aliases) and body["FunctionVersion"] in versions
        aliases[alias] = body["FunctionVersion"]
    if alias not in aliases:
        return 404, {"Type": "User", "Message": "Cannot find alias"}
    return 200, {"Name": alias, "FunctionVersion": aliases[alias], "RevisionId": "r"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        STATE.clear()
        STATE.update(json.loads(FILE.read_text()))
        path, _, arguments = self.path.partition("?")
        kind = "text/xml"
        if path == "/":
            status, text = query(dict(urllib.parse.parse_qsl(body.decode())))
        else:
            kind = "application/json"
            arguments = dict(urllib.parse.parse_qsl(arguments))
            status, value = lambda_(self.command, urllib.parse.unquote(path), arguments, json.loads(body or "{}"))
            text = "" if value is None else json.dumps(value)
        if path != "/" and self.command != "GET":
            FILE.write_text(json.dumps(STATE))
        self.send_response(status)
        self.send_header("content-type", kind)
        if status == 404:
            self.send_header("x-amzn-errortype", "ResourceNotFoundException")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
