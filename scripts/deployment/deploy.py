"""Checks the account and the stack, builds the functions or takes them from an archive, and deploys them with SAM.

Everything is checked before anything is built. Unknown options go to sam deploy, for example --no-confirm-changeset.
"""

import argparse
import datetime
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import botocore.exceptions
import package
import parameters
from samcli.cli.types import CfnParameterOverridesType
from stack import KEPT, Stack, caller, session_of, stop

PROGRAM = "deploy"
PROJECT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = PROJECT / "template.yaml"
# Lambda leaves this many concurrent executions of an account to functions that reserve none.
UNRESERVED = 100


def arguments():
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("--from", dest="archive", type=pathlib.Path, help="an archive that make dist-functions has made")
    parser.add_argument("--architecture", choices=["arm64", "x86_64"], help="else the stack's, or the template's")
    parser.add_argument("--parameters", default="", help='parameters to change, as "Front=function-url Start=false"')
    parser.add_argument("--check", action="store_true", help="check everything, and build and deploy nothing")
    parser.add_argument("--stack-name")
    parser.add_argument("--region")
    parser.add_argument("--profile")
    parser.add_argument("--config-file", type=pathlib.Path, default=PROJECT / "samconfig.toml")
    return parser.parse_known_args()


def overrides(text):
    """Returns parameters as SAM reads them: A=b or ParameterKey=A,ParameterValue=b, once or in a list."""
    return CfnParameterOverridesType().convert(text, None, None) if text else {}


def configured(options):
    """Adds what samconfig.toml says to the options; the command line goes first."""
    config = tomllib.loads(options.config_file.read_text()) if options.config_file.exists() else {}
    sections = config.get("default", {})
    saved = {**sections.get("global", {}).get("parameters", {}), **sections.get("deploy", {}).get("parameters", {})}
    for name in ("stack_name", "region", "profile"):
        setattr(options, name, getattr(options, name) or saved.get(name))
    return {**overrides(saved.get("parameter_overrides")), **overrides(options.parameters)}


def values(template, stack, given):
    """Returns the value of every parameter that does not have its default."""
    known = template["Parameters"]
    kept = {name: value for name, value in stack.parameters.items() if name in known}
    return {**kept, **given}


def concurrency_parameters(template):
    """Returns the parameters that say how much the functions reserve."""

    def names(node):
        if isinstance(node, dict) and "Ref" in node:
            return [node["Ref"]] if node["Ref"] in template["Parameters"] else []
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        return [name for child in children for name in names(child)]

    limits = [resource["Properties"].get("ReservedConcurrentExecutions") for resource in template["Resources"].values()]
    return sorted({name for limit in limits for name in names(limit)})


def check_parameters(template, chosen):
    try:
        broken = parameters.broken_rules(template, parameters.Values(template, chosen))
    except ValueError as error:
        stop(PROGRAM, f"{error}\nmake deploy PARAMETERS=\"Front=function-url ...\" names parameters of template.yaml.")
    if broken:
        stop(PROGRAM, "\n".join(["the parameters contradict each other:", *broken]))


def check_quota(template, chosen, stack, region):
    """Lambda must be able to reserve what the functions of this deployment reserve."""
    reserved = parameters.reserved(template, chosen)
    wanted = sum(reserved.values())
    try:
        limits = stack.lambda_.get_account_settings()["AccountLimit"]
        left = limits["UnreservedConcurrentExecutions"] + stack.reserved() - wanted
    except botocore.exceptions.ClientError as error:
        print(f"{PROGRAM}: the account's quota is not checked: {error}", file=sys.stderr)
        return
    if wanted == 0 or left >= UNRESERVED:
        return
    parts = ", ".join(f"{name.removesuffix('Function')} {count}" for name, count in sorted(reserved.items()))
    none = " ".join(f"{name}=0" for name in concurrency_parameters(template))
    quota, missing = limits["ConcurrentExecutions"], UNRESERVED - left
    stop(
        PROGRAM,
        f"the account's quota in {region} is {quota} concurrent executions, which is {missing} too few\n"
        f"This deployment reserves {wanted} ({parts}), and Lambda leaves {UNRESERVED} unreserved.\n"
        f"Ask for {quota + missing} (Service Quotas, AWS Lambda, \"Concurrent executions\"), or reserve nothing:\n"
        f'make deploy PARAMETERS="{none}"\n'
        "Without reservations only the rate limits bound what unauthenticated callers cost.",
    )


def check_gradual(chosen, stack):
    """CodeDeploy moves an alias from the version that the stack has deployed, and from no other."""
    if chosen.get("GradualDeployment", "off") == "off":
        return
    moved = stack.rolled_back()
    if moved:
        stop(
            PROGRAM,
            f"a gradual deployment cannot begin: {', '.join(moved)} was rolled back, or has no version yet\n"
            'Deploy all at once this time: make deploy PARAMETERS="GradualDeployment=off"',
        )


def architecture_of(build, options, stack):
    """Returns what to build for, or checks what an archive was built for, against the stack."""
    deployed = stack.architecture()
    if build is None:
        return options.architecture or deployed or package.architecture(TEMPLATE.read_text())
    wanted = options.architecture or deployed or build["architecture"]
    if build["architecture"] != wanted:
        reason = "ARCHITECTURE asks for" if options.architecture else f"the functions of the stack {stack.name} run on"
        stop(
            PROGRAM,
            f"{options.archive} is built for {build['architecture']}, and {reason} {wanted}\n"
            f"To change the functions' architecture: make deploy ARCHITECTURE={build['architecture']} FROM={options.archive}",
        )
    return wanted


def released(folder, build, chosen, unique):
    """Writes the template that publishes the versions of this deployment. The same content has the same versions."""
    hashed = hashlib.sha256(package.content(folder).encode())
    hashed.update(repr(sorted(chosen.items())).encode())
    if unique:
        hashed.update(datetime.datetime.now(datetime.timezone.utc).isoformat().encode())
    commit = f" {package.short_commit(build)}" if build["commit"] else ""
    digest = hashed.hexdigest()[:12]
    release = f"{build['version']}{commit} {digest}"
    template = folder / "released.yaml"
    template.write_text(package.with_release((folder / "template.yaml").read_text(), release, digest))
    return template, release


def sam_deploy(template, options, region, given, rest):
    command = ["sam", "deploy", "--template-file", str(template), "--stack-name", options.stack_name]
    command += ["--config-file", str(options.config_file)]
    command += ["--region", region]
    if options.profile:
        command += ["--profile", options.profile]
    if given:
        quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in given.items()}
        command += ["--parameter-overrides", *(f'{name}="{value}"' for name, value in quoted.items())]
    return subprocess.run([*command, *rest], cwd=PROJECT, check=False).returncode


def finish(session, name, live):
    """Remembers which versions were live before, and deletes old ones. It is no failure of the deployment if it fails."""
    try:
        stack = Stack(session, name)
        if not stack.exists:
            return
        stack.remember(live)
        deleted = stack.prune()
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        print(f"{PROGRAM}: deployed, but make rollback may not know the version before: {error}", file=sys.stderr)
        return
    if deleted:
        print(f"{PROGRAM}: deleted {deleted} old versions; the newest {KEPT} of each function are kept")


def checked(options, given, folder):
    """Checks everything that can be known before a build, and returns the session, the stack and what was chosen."""
    build = None
    if options.archive:
        try:
            package.unpacked(options.archive, folder)
            build = package.verify(folder)
        except package.Refused as refused:
            stop(PROGRAM, str(refused))
    session = session_of(options)
    identity = caller(PROGRAM, session)
    stack = Stack(session, options.stack_name)
    stack.must_be_at_rest(PROGRAM)
    template = parameters.read(folder / "template.yaml" if build else TEMPLATE)
    chosen = values(template, stack, given)
    check_parameters(template, chosen)
    check_quota(template, chosen, stack, session.region_name)
    check_gradual(chosen, stack)
    architecture = architecture_of(build, options, stack)
    what = "updates" if stack.exists else "makes"
    where = f"the stack {stack.name} in {session.region_name} for {architecture}"
    print(f"{PROGRAM}: as {identity['Arn']}; {what} {where}", flush=True)
    return session, stack, chosen, architecture


def main():
    options, rest = arguments()
    given = configured(options)
    options.stack_name = options.stack_name or "keyway"
    with tempfile.TemporaryDirectory() as unpacked:
        folder = pathlib.Path(unpacked) / "functions" if options.archive else PROJECT / ".aws-sam/build"
        session, stack, chosen, architecture = checked(options, given, folder)
        if options.check:
            return
        if not options.archive:
            subprocess.run([PROJECT / "scripts/package-functions", architecture], check=True)
        build = package.verify(folder)
        unique = "--guided" in rest or "-g" in rest or stack.status.endswith("ROLLBACK_COMPLETE")
        template, release = released(folder, build, chosen, unique)
        print(f'{PROGRAM}: {package.described(build)}, versions "{release}"', flush=True)
        live = stack.live()
        code = sam_deploy(template, options, session.region_name, given, rest)
    if code == 0:
        finish(session, stack.name, live)
    sys.exit(code)


if __name__ == "__main__":
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "3")
    main()
