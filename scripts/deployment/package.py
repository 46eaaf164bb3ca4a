"""Writes what a deployment of the functions needs into one folder, and reads such a folder.

    package.py TEMPLATE PACKAGES ARCHITECTURE VERSION COMMIT FOLDER [ARCHIVE]

PACKAGES holds FUNCTION/bootstrap.zip for each function of the template. FOLDER gets the packages, the template that names
them and their architecture, build.json, and SHA256SUMS over all of them. ARCHIVE, if given, is a tar of the folder.
"""

import hashlib
import json
import pathlib
import re
import shutil
import sys
import tarfile
import zipfile

# The field e_machine of an ELF file.
MACHINES = {62: "x86_64", 183: "arm64"}
SUMS = "SHA256SUMS"
FUNCTION = re.compile(r"^ +Binary: (\S+)\n(?:.*\n)*?(?P<uri> +CodeUri:) .*$", re.MULTILINE)
ARCHITECTURES = re.compile(r"^( +Architectures: \[)(\w+)(\])$", re.MULTILINE)
RELEASE = re.compile(r"^( +Release: ).*$", re.MULTILINE)


class Refused(Exception):
    """The folder or archive cannot be deployed."""


def replaced_once(pattern, replacement, text):
    text, count = pattern.subn(replacement, text)
    if count != 1:
        raise Refused(f"the template has {count} lines for {pattern.pattern}, not one")
    return text


def functions(template):
    """Returns the names of the functions, in the template's order."""
    return [found[1] for found in FUNCTION.finditer(template)]


def architecture(template):
    """Returns what the template's functions run on."""
    return ARCHITECTURES.search(template)[2]


def with_packages(template, architecture):
    """Returns the template with the packages beside it, for their architecture."""
    template = FUNCTION.sub(lambda found: f"{found[0][: found.end('uri') - found.start()]} {found[1]}.zip", template)
    return replaced_once(ARCHITECTURES, rf"\g<1>{architecture}\g<3>", template)


def with_release(template, release, hashed):
    """Returns the template that publishes a version of each function with this description.

    A version cannot be updated, so the hash names new resources; CloudFormation then retains the former ones.
    """
    return replaced_once(RELEASE, rf"\g<1>{release}", template.replace("VersionUnreleased", f"Version{hashed}"))


def bootstrap(package):
    """Returns the program in a package."""
    try:
        with zipfile.ZipFile(package) as content:
            return content.read("bootstrap")
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise Refused(f"{package} is no package of a function: {error}") from error


def machine(program):
    """Returns the architecture that an ELF program is built for."""
    if program[:4] != b"\x7fELF" or len(program) < 20:
        return "no ELF program"
    return MACHINES.get(int.from_bytes(program[18:20], "little"), "another architecture")


def sums(folder):
    """Returns the lines of SHA256SUMS for the folder as it is."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def write(template, packages, build, folder):
    """Makes the folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for function in functions(template):
        shutil.copyfile(packages / function / "bootstrap.zip", folder / f"{function}.zip")
    (folder / "template.yaml").write_text(with_packages(template, build["architecture"]))
    (folder / "build.json").write_text(json.dumps(build, indent=2) + "\n")
    (folder / SUMS).write_text(sums(folder))
    return verify(folder)


def verify(folder):
    """Returns what was built, after a check that every file is the one that was built, and for this architecture."""
    try:
        build = json.loads((folder / "build.json").read_text())
        expected = (folder / SUMS).read_text()
        template = (folder / "template.yaml").read_text()
    except (OSError, ValueError) as error:
        raise Refused(f"{folder} is no build of the functions: {error}") from error
    if sums(folder) != expected:
        raise Refused(f"a file of {folder} is not the one in its {SUMS}")
    if with_packages(template, build["architecture"]) != template:
        raise Refused(f"the template in {folder} is not for {build['architecture']}")
    for function in functions(template):
        built_for = machine(bootstrap(folder / f"{function}.zip"))
        if built_for != build["architecture"]:
            raise Refused(f"{function} is built for {built_for}, not for {build['architecture']}")
    return build


def content(folder):
    """Returns a hash of the programs and the template, whatever the packages' dates are."""
    template = (folder / "template.yaml").read_text()
    hashed = hashlib.sha256(template.encode())
    for function in functions(template):
        hashed.update(hashlib.sha256(bootstrap(folder / f"{function}.zip")).digest())
    return hashed.hexdigest()


def short_commit(build):
    """Returns the beginning of the build's commit, and whether files were changed since."""
    commit, _, changed = build["commit"].partition("-")
    return commit[:12] + (f"-{changed}" if changed else "")


def described(build):
    commit = f" ({short_commit(build)})" if build["commit"] else ""
    return f"Keyway {build['version']}{commit} for {build['architecture']}"


def archive(folder, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"{path.stem}/{file.name}")


def unpacked(path, folder):
    """Unpacks an archive into the folder, which is made anew. Only files are taken, each without its path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    (folder / pathlib.PurePath(member.name).name).write_bytes(tar.extractfile(member).read())
    except (OSError, tarfile.TarError) as error:
        raise Refused(f"{path} is no archive of the functions: {error}") from error


def main(template, packages, architecture, version, commit, folder, path=None):
    build = {"version": version, "commit": commit, "architecture": architecture}
    folder = pathlib.Path(folder)
    try:
        write(pathlib.Path(template).read_text(), pathlib.Path(packages), build, folder)
    except Refused as refused:
        sys.exit(f"package-functions: {refused}")
    if path is not None:
        archive(folder, pathlib.Path(path))
    print(f"built {described(build)}: {path or folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
