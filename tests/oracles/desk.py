"""What the oracles share: a receiver that keeps what it is sent, and orders to the simulator.

No oracle uses code of Keywheel's; each says what it checked, and ends with an error at the first difference.
"""

import http.server
import json
import sys
import threading
import urllib.error
import urllib.request


class Receiver:
    """Listens on a port of its own and keeps requests as (method, path, headers, body)."""

    def __init__(self):
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def take(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                seen.append((self.command, self.path, self.headers, body))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_OPTIONS = take

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/oracle"
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Simulator:
    """A running `keywheel sim`, named on the command line."""

    def __init__(self):
        self.url = sys.argv[1].rstrip("/")
        self.receiver = Receiver()

    def emit(self, kind, **order):
        """Emits, and gives the requests that came of it."""
        self.receiver.seen.clear()
        body = json.dumps({"kind": kind, "url": self.receiver.url, **order}).encode()
        request = urllib.request.Request(self.url + "/sim/v1/emit", body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as reply:
                json.load(reply)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{kind} {order}: {error.read().decode()}") from None
        return list(self.receiver.seen)

    def one(self, kind, **order):
        """Emits what makes one request, and gives its headers and body."""
        (request,) = self.emit(kind, **order)
        return request[2], request[3]

    def fetch(self, url):
        """GETs a path of the simulator, or a whole address."""
        with urllib.request.urlopen(url if "://" in url else self.url + url) as reply:
            return reply.read()


def refuses(what, call, *errors):
    """Asserts that a library refuses something."""
    try:
        call()
    except errors:
        return
    raise SystemExit(f"{what} was accepted")


def post(url, body, headers):
    """POSTs as anybody would, and gives status and text."""
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
