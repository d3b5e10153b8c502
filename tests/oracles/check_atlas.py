"""Judges the simulator's Atlas alerts with Python's own HMAC. Usage: check_atlas.py SIMULATOR"""

import base64
import hashlib
import hmac
import json

from desk import Simulator

sim = Simulator()
order = {"event": "AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "groupId": "0000000000000065aa000001", "secret": "whsec-example"}


def tag(body):
    return hmac.new(b"whsec-example", body, hashlib.sha1)


headers, body = sim.one("atlas", **order)
assert headers["X-MMS-Event"] == "alert.open" and json.loads(body)["status"] == "OPEN"
assert headers["X-MMS-Signature"] == base64.b64encode(tag(body).digest()).decode()
headers, body = sim.one("atlas", encoding="hex", **order)
assert headers["X-MMS-Signature"] == tag(body).hexdigest()
headers, body = sim.one("atlas", oversize=100_000, **order)
assert len(body) == 100_000 and headers["X-MMS-Signature"] == base64.b64encode(tag(body).digest()).decode()
for forge in ("signature", "stranger"):
    headers, body = sim.one("atlas", forge=forge, **order)
    assert headers["X-MMS-Signature"] != base64.b64encode(tag(body).digest()).decode(), forge
headers, body = sim.one("atlas", truncate=True, **order)
assert headers["X-MMS-Signature"] != base64.b64encode(tag(body).digest()).decode()
print("atlas: HMAC-SHA-1 in Base64 and hex, forged and truncated ones differ")
