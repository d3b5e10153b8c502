"""Receives webhooks and judges each with the packages standardwebhooks and cloudevents.

Usage: receive_webhooks.py PORT_FILE WANTED SECRET...    (WANTED: types, separated by commas)
The first attempt at each delivery is answered with 500, so that a repetition is judged too. Ends with 0
when every wanted type came twice under one id, verified with each secret, and with 1 otherwise."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from cloudevents.v1.http import from_http
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

port_file, wanted, secrets = sys.argv[1], set(sys.argv[2].split(",")), sys.argv[3:]
rotations, attempts, done, wrong = frozenset(wanted), {}, set(), []


def refused(secret, body, headers):
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return True
    return False


def judge(headers, body):
    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == json.loads(body)
        # A judge that says yes to everything would be none.
        assert refused(secret, body.replace(b'"specversion"', b'"specversiom"'), headers)
        assert refused(secret, body, headers | {"webhook-id": "msg_other"})
        assert refused(secret, body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)})
    assert refused("whsec_" + "A" * 32, body, headers)
    event = from_http(headers, body)
    assert event["specversion"] == "1.0" and event["id"] == headers["webhook-id"], event
    assert event["datacontenttype"] == "application/json" and event["source"].startswith("http"), event
    assert event.data["link"] and len(body) < 20_000
    # What concerns the installation has no project.
    if event["type"] in rotations:
        assert event["subject"].startswith("projects/" + event.data["groupId"]), event
        assert event.data["newKey"] and event.data["oldKey"]
    return event["type"]


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 500
        try:
            kind, number = judge(headers, body), headers["webhook-id"]
            first = attempts.setdefault(number, body)
            assert first == body, "the body changed between attempts"
            if number in done:
                wrong.append(f"{number} was delivered twice")
            if first is not body:
                status = 204
                done.add(number)
                wanted.discard(kind)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}: {headers} {body!r}")
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Endpoint)
server.timeout = 1
with open(port_file, "w") as file:
    file.write(str(server.server_port))
end = time.monotonic() + 90
while wanted and not wrong and time.monotonic() < end:
    server.handle_request()
if wanted or wrong:
    sys.exit(f"webhooks: missing {sorted(wanted)}, wrong {wrong}")
print(
    f"webhooks: standardwebhooks verifies {len(done)} deliveries and their repetitions with {len(secrets)} secrets,"
    " and refuses what was changed; cloudevents reads them"
)
