"""Points the functions' aliases to the versions of the deployment before, or with --undo to the last one again."""

import argparse
import sys

from stack import BEFORE, LIVE, Stack, caller, session_of, stop

PROGRAM = "rollback"


def arguments():
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--stack-name", default="keyway")
    parser.add_argument("--region")
    parser.add_argument("--profile")
    parser.add_argument("--undo", action="store_true", help="serve the versions that were deployed last again")
    return parser.parse_args()


def move(stack, name, function, to):
    """Points a function's alias to a version, and returns that version's release; none if the function is left."""
    alias = stack.alias(function, LIVE)
    if alias is None:
        # CloudFormation itself calls the function that sets the stack up.
        return None
    if to is None:
        print(f"{name}: has no version before, and is left as it is")
        return None
    now, releases = alias["FunctionVersion"], stack.versions(function)
    release = releases.get(int(to), "")
    if now == to and not alias.get("RoutingConfig", {}).get("AdditionalVersionWeights"):
        print(f"{name}: version {to} ({release}) is live already")
        return release
    was = releases.get(int(now), "") if now.isdigit() else "unpublished"
    print(f"{name}: version {now} ({was}) -> {to} ({release})", flush=True)
    stack.lambda_.update_alias(
        FunctionName=function,
        Name=LIVE,
        FunctionVersion=to,
        RoutingConfig={"AdditionalVersionWeights": {}},
        RevisionId=alias["RevisionId"],
    )
    return release


def main():
    options = arguments()
    session = session_of(options)
    account = caller(PROGRAM, session)["Account"]
    stack = Stack(session, options.stack_name)
    if not stack.exists:
        stop(PROGRAM, f"there is no stack {stack.name} in {session.region_name} of account {account}")
    stack.must_be_at_rest(PROGRAM)
    if options.undo:
        targets = {name: str(version) for name, version in stack.deployed().items()}
    else:
        aliases = {name: stack.alias(function, BEFORE) for name, function in stack.functions().items()}
        targets = {name: alias["FunctionVersion"] for name, alias in aliases.items() if alias}
    if not targets:
        what = "that make deploy published" if options.undo else "before the last make deploy"
        stop(PROGRAM, f"no function of the stack {stack.name} has a version {what}")
    served = {name: move(stack, name, function, targets.get(name)) for name, function in stack.functions().items()}
    if len({release for release in served.values() if release is not None}) > 1:
        print("These versions come from different deployments: check that they fit each other.", file=sys.stderr)


if __name__ == "__main__":
    main()
