"""Starts one stand-in for AWS on loopback, runs a command beside it, stops everything, passes the exit code on.

Usage: serve.py docker|host|moto CACHE JDK COMMAND... - scripts/with-aws has picked the backend and installed it into CACHE.
It uses only the standard library of Python 3.9, so that it runs with any backend's Python.
"""

import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGE = "localstack/localstack"
INDEX = "service-catalog-*.dill"
START_SECONDS = 120
STOP_SECONDS = 10
LINUX = sys.platform.startswith("linux")
LIBC = ctypes.CDLL(None) if LINUX else None
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Stopped(Exception):
    """A signal told this process to stop."""


def on_signal(number, _frame):
    raise Stopped(number)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_with_parent():
    """The service gets SIGTERM when this process is killed without a chance to stop it."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def service(backend, cache, jdk, port, data):
    """The service's command line and what its environment has besides ours."""
    if backend == "moto":
        return [f"{cache}/moto/bin/python", str(Path(__file__).with_name("moto_server.py")), str(port)], {}
    if backend == "docker":
        token = ["--env", "LOCALSTACK_AUTH_TOKEN"] if "LOCALSTACK_AUTH_TOKEN" in os.environ else []
        return [
            "docker", "run", "--rm", "--pull", "never", "--name", f"keyway-aws-{port}", *token,
            "--publish", f"127.0.0.1:{port}:4566", "--env", "DISABLE_EVENTS=1", IMAGE,
        ], {}  # fmt: skip
    # Host mode: LocalStack below a separate root, with the files that it would else download for DynamoDB.
    # DynamoDB Local listens on every interface and has no option against it. Started by LocalStack it is reached through
    # the gateway on 127.0.0.1, gets a random port, holds only this run's test data in memory, and ends with the run.
    lib = data / "var/lib/localstack/lib"
    link(lib / "java/21", jdk)
    link(lib / "dynamodb-local/2", f"{cache}/dynamodb-local")
    # LocalStack takes seconds to make its index of services at its first request; reuse the one of the run before (keep_index).
    for index in Path(cache, "localstack").glob(INDEX):
        link(data / "var/lib/localstack/cache" / index.name, index)
    return [f"{cache}/localstack/bin/python", "-m", "localstack.runtime.main"], {
        "OVERRIDE_IN_DOCKER": "0",
        "FILESYSTEM_ROOT": str(data),
        "LOCALSTACK_VOLUME_DIR": str(data),
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "DNS_ADDRESS": "0",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "DYNAMODB_IN_MEMORY": "1",
        # The default server, Twisted, reads only the port of GATEWAY_LISTEN and would listen on every interface.
        "GATEWAY_SERVER": "hypercorn",
        # Files that either of them unpacks go below the folder that is removed at the end.
        "TEMP": str(data),
        "XDG_CACHE_HOME": f"{cache}/localstack/cache",
        "JDK_JAVA_OPTIONS": f"-Djava.io.tmpdir={data} -XX:-UsePerfData",
    }


def keep_index(cache, data):
    """Keeps LocalStack's index of services for the next run; two runs at once replace it whole, never in part."""
    for index in (data / "var/lib/localstack/cache").glob(INDEX):
        if not index.is_symlink():
            copy = Path(cache, "localstack", f"{index.name}.{os.getpid()}")
            shutil.copyfile(index, copy)
            copy.replace(copy.with_name(index.name))


def answers(port, target, name, version):
    """Whether the service behind the endpoint answers: DynamoDB's Java starts with its first request, so ask for real."""
    scope = f"test/20200101/us-east-1/{name}/aws4_request"
    headers = {
        "content-type": f"application/x-amz-json-{version}",
        "x-amz-target": target,
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("POST", "/", b"{}", headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_up(process, port):
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers(port, "DynamoDB_20120810.ListTables", "dynamodb", "1.0") and answers(
            port, "secretsmanager.ListSecrets", "secretsmanager", "1.1"
        ):
            return True
        time.sleep(0.1)
    return False


def parents():
    """Returns the parent of every process that runs."""
    if not LINUX:
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
        rows = (line.split() for line in table.stdout.splitlines())
        return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            found[int(stat.parent.name)] = int(parent)
    return found


def below(ancestor):
    """Every process below `ancestor`, whatever session or group it has moved to."""
    table = parents()
    found, generation = [], {ancestor}
    while generation:
        generation = {pid for pid, parent in table.items() if parent in generation}
        found.extend(generation)
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def stop(polite):
    """Asks the processes to stop, then ends whatever is still below us, orphans too, since we adopt those."""
    send(polite, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while below(os.getpid()) and time.monotonic() < deadline:
        time.sleep(0.05)
        reap()
    while rest := below(os.getpid()):
        send(rest, signal.SIGKILL)
        time.sleep(0.05)
        reap()


def tail(log):
    lines = log.read_text(errors="replace").splitlines()[-40:]
    print("\n".join(["with-aws: the end of the service's log:", *lines]), file=sys.stderr)


def main():
    backend, cache, jdk, *command = sys.argv[1:]
    if LIBC:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    data = running = started = None
    port = free_port()
    code = 1
    try:
        data = Path(tempfile.mkdtemp(prefix="keyway-aws."))
        log = data / "service.log"
        line, more = service(backend, cache, jdk, port, data)
        # The service sees neither our Python's settings nor a signal from the terminal: it outlives the command.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with log.open("wb") as output:
            started = subprocess.Popen(
                line, cwd=data, env={**environment, **more}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        begun = time.monotonic()
        if not wait_until_up(started, port):
            print(f"with-aws: {backend} did not come up within {START_SECONDS} s", file=sys.stderr)
            tail(log)
            return 1
        print(f"with-aws: up on 127.0.0.1:{port} after {time.monotonic() - begun:.1f} s", file=sys.stderr)
        if backend == "host":
            keep_index(cache, data)
        named = {"KEYWAY_TEST_AWS_BACKEND": backend, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        try:
            running = subprocess.Popen(command, env={**os.environ, **named})
        except OSError as error:
            print(f"with-aws: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
        code = running.wait()
        code = 128 - code if code < 0 else code
        if started.poll() is not None:
            print(f"with-aws: {backend} ended before the command did", file=sys.stderr)
            tail(log)
            code = code or 1
    except Stopped as reason:
        code = 128 + reason.args[0]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Stop the command and all its processes first, as Ctrl-C would; only then the service that it may still use.
        if running is not None and running.poll() is None:
            send([running.pid, *below(running.pid)], signal.SIGTERM)
            try:
                running.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                send([running.pid, *below(running.pid)], signal.SIGKILL)
        # Signal only our own process, so that LocalStack can stop its Java; then end each remaining process.
        stop([started.pid] if started is not None and started.poll() is None else [])
        if backend == "docker":
            subprocess.run(["docker", "rm", "--force", f"keyway-aws-{port}"], capture_output=True, timeout=60, check=False)
        if data is not None:
            shutil.rmtree(data, ignore_errors=True)
    return code


sys.exit(main())
