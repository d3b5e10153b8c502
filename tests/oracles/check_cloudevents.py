"""Reads the simulator's CloudEvents with the package cloudevents. Usage: check_cloudevents.py SIMULATOR"""

import json
from urllib.parse import unquote

from cloudevents.v1.http import from_http, from_json
from desk import Simulator

sim = Simulator()
group = "0000000000000065aa000001"
order = {"groupId": group, "key": "k", "reason": "täglich", "source": "/jobs/täglich 100%"}


def judge(event):
    assert event["specversion"] == "1.0" and event["type"] == "io.keywheel.rotation.requested.v1"
    data = event.data if isinstance(event.data, dict) else json.loads(event.data)
    assert data == {"groupId": group, "newKey": "k", "reason": "täglich"}, data
    return event


headers, body = sim.one("cloudevents", mode="structured", **order)
assert judge(from_http(dict(headers), body))["source"] == order["source"]
headers, body = sim.one("cloudevents", mode="structured", dataBase64=True, **order)
judge(from_http(dict(headers), body))
# The package takes binary headers as they are; undoing the percent signs is left to its user.
headers, body = sim.one("cloudevents", mode="binary", **order)
event = judge(from_http({name: value for name, value in headers.items()}, body))
assert unquote(event["source"]) == order["source"], event["source"]
headers, body = sim.one("cloudevents", mode="batch", count=3, **order)
events = [judge(from_json(json.dumps(it))) for it in json.loads(body)]
assert len({event["id"] for event in events}) == 3
azure = {"schema": "cloud-events", "key": "https://v.vault.azure.net/keys/atlas-cmk/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10"}
headers, body = sim.one("azure-event-grid", array=False, **azure)
event = from_http(dict(headers), body)
assert event["type"] == "Microsoft.KeyVault.KeyNewVersionCreated" and event["subject"] == "atlas-cmk"
assert event.data["Id"] == azure["key"]
headers, body = sim.one("azure-event-grid", batch=True, count=2, **azure)
assert len([from_json(json.dumps(it)) for it in json.loads(body)]) == 2
print("cloudevents: the package reads structured, binary and batched events, and those of Event Grid")
