"""RustFS's own client, rc, against a running service.

Usage: rc_client.py RC ENDPOINT, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, of an administrator. The service runs and has no
bucket `albums`. Prints one JSON line for each check that held; ends with another code than 0 at the first that did not.
"""

import json
import os
import subprocess
import sys
import tempfile

RC, ENDPOINT = sys.argv[1:]
HOME = tempfile.mkdtemp()


def held(check):
    print(json.dumps({"check": check}), flush=True)


def rc(*arguments, fails=False):
    """The output of rc, for a command that succeeds or is refused."""
    environment = {**os.environ, "HOME": HOME, "RC_CONFIG_DIR": os.path.join(HOME, "rc")}
    said = subprocess.run([RC, "--json", *arguments], capture_output=True, text=True, env=environment, timeout=60)
    assert (said.returncode != 0) == fails, (arguments, said.stdout, said.stderr)
    if fails:
        return said.stdout + said.stderr
    answer = json.loads(said.stdout) if said.stdout.strip() else {}
    return answer.get("data", answer)


rc("alias", "set", "kw", ENDPOINT, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
assert rc("ping", "kw")["healthy"] is True
assert rc("ready", "kw")["healthy"] is True
held("an alias is set, and the service lives and is ready")

status = rc("admin", "kms", "status", "kw")
assert (status["state"], status["backend"], status["healthy"]) == ("running", "local", True), status
rc("admin", "kms", "restart", "kw", "--yes")
rc("admin", "kms", "stop", "kw", "--yes")
assert rc("ready", "kw", fails=True)
rc("admin", "kms", "start", "kw")
assert rc("admin", "kms", "status", "kw")["state"] == "running"
held("the service is restarted, stopped and started")

rc("admin", "kms", "key", "create", "kw", "--name", "albums-key", "--description", "of albums")
listed = rc("admin", "kms", "key", "list", "kw")["keys"]
assert len(listed) == 1, listed
key = listed[0].get("key_id") or listed[0]["id"]
assert key == "albums-key", listed
rc("admin", "kms", "key", "status", "kw", key)
held("a key is made, listed and shown")

rc("bucket", "create", "kw/albums")
rc("bucket", "encryption", "set", "--mode", "sse-kms", "--key-id", key, "kw/albums")
assert key in json.dumps(rc("bucket", "encryption", "info", "kw/albums"))
rc("bucket", "encryption", "clear", "kw/albums")
rc("bucket", "remove", "kw/albums")
held("a bucket is made, encrypts by the key, and is removed")

rc("admin", "kms", "key", "delete", "kw", key, "--yes")
rc("admin", "kms", "key", "cancel-deletion", "kw", key)
# rc does not repeat the key's id, which immediate deletion needs.
rc("admin", "kms", "key", "delete", "kw", key, "--immediate", "--yes", fails=True)
assert len(rc("admin", "kms", "key", "list", "kw")["keys"]) == 1
held("deletion of a key is scheduled and cancelled, and never at once")
