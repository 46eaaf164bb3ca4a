#!/usr/bin/env python3
"""Calls a function that runs under Lambda's Runtime Interface Emulator, as an HTTP API would.

    invoke.py PORT METHOD PATH [BODY]    prints the body of the answer

PATH is below /rustfs/admin/v3. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) sign the request.
"""

import base64
import json
import sys
import urllib.request

sys.dont_write_bytecode = True
from make_events import http_api, signed_again  # noqa: E402


def main(port, method, path, body=None):
    event = signed_again(http_api(method, path, {}, "", body))
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations", json.dumps(event).encode()
    )
    answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
    if "errorMessage" in answer:
        sys.exit(answer["errorMessage"])
    text = answer.get("body") or ""
    print(base64.b64decode(text).decode() if answer.get("isBase64Encoded") else text)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
