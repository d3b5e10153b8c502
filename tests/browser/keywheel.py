"""A Keywheel with its simulator, as processes, and the calls that set a scene. It knows nothing of pages."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

BINARY = os.environ.get("KEYWHEEL", "target/debug/keywheel")

CONFIG = """
data_dir = "{folder}/data"
[server]
listen = "127.0.0.1:{port}"
public_url = "http://localhost:{port}"
socket = ""
[atlas]
base_url = "{sim}"
request_timeout = "5s"
[atlas.credentials.default]
kind = "service-account"
client_id = "mdb_sa_id_demo"
client_secret = "mdb_sa_sk_demo"
{paces}
"""

# Waits that a test can bear: a rotation takes seconds.
FAST = """
[verify]
every = "300ms"
false_grace = "2s"
timeout = "50s"
guard = "60s"
private_network_hold = "61s"
deploy_poll = "100ms"
deploy_grace = "2500ms"
deploy_timeout = "20s"
[pace]
backoff_min = "50ms"
backoff_max = "300ms"
rate_limit_floor = "200ms"
settle = "400ms"
[sweep]
cron = "* * * * * *"
drift_every = "1h"
watch_every = "1s"
watch_for = "1s"
"""


def eventually(look, what, limit=30):
    """The first answer of `look` that is not false; a failure of the page under way counts as none."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.05)


def group(number):
    """The group id of a project of the simulator's demo world, counted from 1."""
    return f"0000000000000065aa{number:06x}"


class Keywheel:
    """One installation. Without `paces` it has the waits of production, so a rotation stays where it is."""

    def __init__(self, paces=""):
        self.running = []
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        log = self._start("sim", "--listen", "127.0.0.1:0")
        self.sim = eventually(lambda: log.read_text().strip(), "the simulator starts").splitlines()[0]
        self.config = self.folder / "keywheel.toml"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.config.write_text(CONFIG.format(folder=self.folder, sim=self.sim, port=port, paces=paces))
        self.config.chmod(0o600)
        log = self._start("serve", "--config", str(self.config))

        eventually(lambda: "keywheel serves address=" in log.read_text(), "it serves")
        # By a name, as people come: passkeys are made for one.
        self.url = f"http://localhost:{port}"
        self.tokens, self.tracked = {}, set()
        self.token("admin", "admin")

    def _start(self, *args):
        log = self.folder / f"{args[0]}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYWHEEL_")}
        with log.open("w") as out:
            child = subprocess.Popen([BINARY, *args], stdout=out, stderr=out, env=environment)
        self.running.append(child)
        return log

    def stop(self):
        for child in self.running:
            child.kill()
            child.wait()
        self.temporary.cleanup()

    def command(self, *args):
        done = subprocess.run([BINARY, *args, "--config", str(self.config)], capture_output=True, text=True)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout.strip()

    def token(self, name, *roles):
        arguments = [part for role in roles for part in ("--role", role)]
        person = f"{name}@example.com"
        self.tokens[name] = self.command("token", "create", "--name", name, "--person", person, *arguments)
        return self.tokens[name]

    def _ask(self, url, method, body, headers):
        data = json.dumps(body).encode() if body is not None else None
        headers = {**headers, "content-type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{method} {url}: {refused.code} {refused.read().decode()}") from None
        return json.loads(text) if text else None

    def api(self, method, path, body=None, name="admin"):
        token = {"authorization": f"Bearer {self.tokens[name]}"}
        return self._ask(f"{self.url}/api/v1{path}", method, body, token)

    def simulate(self, method, path, body=None):
        return self._ask(f"{self.sim}/sim/v1{path}", method, body, {})

    def add(self, number, **fields):
        """Tracks a project of the simulator, once, after its fields there were set."""
        if fields:
            self.simulate("POST", f"/projects/{group(number)}", fields)
        if number not in self.tracked:
            self.tracked.add(number)
            self.api("POST", "/projects", {"groupId": group(number), "owners": ["team@example.com"]})

    def keys(self, number):
        """The key of a project in the simulator, and the one that it can move to."""
        block = self.simulate("GET", "/world")["projects"][group(number)]["block"]
        names = ("customerMasterKeyID", "keyIdentifier", "keyVersionResourceID")
        old = next(block[name] for name in names if name in block)
        return old, old[:-1] + "2"

    def propose(self, number, name="admin", reason="due on 1 Dec"):
        """The id of a new rotation; its project is added."""
        self.add(number)
        body = {"newKey": self.keys(number)[1], "reason": reason}
        return self.api("POST", f"/projects/{group(number)}/rotations", body, name)["id"]

    def rotation(self, rotation):
        return self.api("GET", f"/rotations/{rotation}")

    def approve(self, rotation, name):
        self.api("POST", f"/rotations/{rotation}/approve", {}, name)

    def reaches(self, rotation, *states):
        eventually(lambda: self.rotation(rotation)["state"] in states, f"{rotation} is {states}")
