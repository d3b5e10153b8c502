"""Sends CloudEvents made by the package cloudevents to a hook, and says what it answered.

Usage: send_cloudevents.py URL TOKEN GROUP_ID [KEY]
Genuine ones must be taken (2xx) in each mode; one with another token must be refused (401).
"""

import json
import sys

from cloudevents.v1.conversion import to_binary, to_json, to_structured
from cloudevents.v1.http import CloudEvent
from desk import post

url, token, group = sys.argv[1:4]
data = {"groupId": group, "reason": "sent by cloudevents"}
if len(sys.argv) > 4:
    data["newKey"] = sys.argv[4]


def event():
    return CloudEvent({"type": "io.keywheel.rotation.requested.v1", "source": "/oracles/cloudevents"}, data)


def send(what, headers, body, wanted, token=token):
    headers = {**headers, "authorization": f"Bearer {token}"}
    status, text = post(url, body, headers)
    print(f"{what}: {status} {text}")
    if not wanted(status):
        raise SystemExit(f"{what} was answered {status}")


def taken(status):
    return 200 <= status < 300


for what, (headers, body) in {"structured": to_structured(event()), "binary": to_binary(event())}.items():
    send(what, headers, body, taken)
batch = json.dumps([json.loads(to_json(event())) for _ in range(3)]).encode()
send("batch", {"content-type": "application/cloudevents-batch+json"}, batch, taken)
headers, body = to_structured(event())
send("structured, again", headers, body, taken)
send("structured, the same again", headers, body, taken)
send("another token", headers, body, lambda status: status == 401, token=token + "x")
