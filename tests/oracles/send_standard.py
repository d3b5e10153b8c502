"""Sends Standard Webhooks made by the package standardwebhooks to a hook, and says what it answered.

Usage: send_standard.py URL SECRET GROUP_ID [KEY]
A genuine event must be taken (2xx); one with another secret, an old one and a changed one must be refused (401).
"""

import datetime
import json
import sys
import uuid

from desk import post
from standardwebhooks.webhooks import Webhook

url, secret, group = sys.argv[1:4]
data = {"groupId": group, "reason": "sent by standardwebhooks"}
if len(sys.argv) > 4:
    data["newKey"] = sys.argv[4]
now = datetime.datetime.now(datetime.timezone.utc)
other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def send(what, wanted, secret=secret, at=now, change=lambda body: body, number=None):
    number = number or f"msg_{uuid.uuid4().hex}"
    body = json.dumps({"type": "io.keywheel.rotation.requested.v1", "timestamp": at.isoformat(), "data": data})
    signature = Webhook(secret).sign(number, at, body)
    headers = {
        "content-type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    status, text = post(url, change(body).encode(), headers)
    print(f"{what}: {status} {text}")
    if not wanted(status):
        raise SystemExit(f"{what} was answered {status}")
    return number


def taken(status):
    return 200 <= status < 300


def refused(status):
    return status == 401


number = send("a genuine event", taken)
send("the same again", taken, number=number)
send("another secret", refused, secret=other)
send("an hour old", refused, at=now - datetime.timedelta(hours=1))
send("an hour early", refused, at=now + datetime.timedelta(hours=1))
send("a changed body", refused, change=lambda body: body.replace("sent by", "made by"))
