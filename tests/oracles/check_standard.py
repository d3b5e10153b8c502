"""Judges the simulator's Standard Webhooks with the package standardwebhooks. Usage: check_standard.py SIMULATOR"""

import json

from desk import Simulator, refuses
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

sim = Simulator()
old, new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
order = {"secret": new, "groupId": "0000000000000065aa000001", "key": "k", "reason": "quarterly"}


def plain(headers):
    return {name.lower(): value for name, value in headers.items()}


for envelope in ("standard", "cloudevents"):
    headers, body = sim.one("standard", envelope=envelope, **order)
    event = Webhook(new).verify(body, plain(headers))
    assert event["type"] == "io.keywheel.rotation.requested.v1" and event["data"]["newKey"] == "k", event
    refuses("another secret", lambda: Webhook(old).verify(body, plain(headers)), WebhookVerificationError)
headers, body = sim.one("standard", previousSecret=old, **order)
for secret in (old, new):
    Webhook(secret).verify(body, plain(headers))
for spoilt in ({"forge": it} for it in ("signature", "unsigned", "stranger", "expired", "early")):
    headers, body = sim.one("standard", **spoilt, **order)
    refuses(spoilt, lambda: Webhook(new).verify(body, plain(headers)), WebhookVerificationError)
headers, body = sim.one("standard", truncate=True, **order)
refuses("a truncated body", lambda: Webhook(new).verify(body, plain(headers)), WebhookVerificationError)
first, again = sim.emit("standard", replay=1, **order)
assert first[2].items() == again[2].items() and first[3] == again[3]
json.loads(first[3])
print("standard: standardwebhooks verifies both envelopes and both secrets, and refuses six forgeries")
