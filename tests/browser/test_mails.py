"""Mails of every kind as a real SMTP server receives them, shown by Chromium: on a phone and beside a list, light and dark, with
and without the style element that some programs strip. Others judge them as they judge the pages."""

import email
import email.policy
import html
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

from chromium import Chromium
from keywheel import BINARY, Keywheel, eventually
from test_pages import AXE, JUDGE, widest

SERVER = pathlib.Path(__file__).parents[1] / "it/support/smtpd.py"
# The widths of a phone, and of a mail beside the list of mails.
WIDTHS = (360, 600)

# The keys that are broken over lines, or reach over the edge.
BROKEN = """
return Array.from(document.querySelectorAll('.sunk p[style*="nowrap"]')).filter((it) => {
  const range = document.createRange();
  range.selectNodeContents(it);
  const lines = Array.from(range.getClientRects());
  return lines.length !== 1 || lines[0].right > document.documentElement.clientWidth;
}).map((it) => it.textContent);
"""


class Mailbox:
    """A real SMTP server; what it accepted, in order."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.file = pathlib.Path(self.folder.name, "mails")
        self.file.write_text("")
        orders = json.dumps({"file": str(self.file)})
        self.child = subprocess.Popen(["/usr/bin/python3", str(SERVER), orders], stdout=subprocess.PIPE, text=True)
        self.port = int(self.child.stdout.readline())

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.folder.cleanup()

    def mails(self):
        lines = self.file.read_text().splitlines()
        return [email.message_from_string(json.loads(line)["content"], policy=email.policy.default) for line in lines]


def part(mail, kind):
    return mail.get_body((kind,)).get_content()


def visible(source):
    """What is left of HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", source))


class Mails(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.box = Mailbox()
        self.addCleanup(self.box.stop)
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        self.browser = Chromium(self.folder.as_uri() + "/")
        self.addCleanup(self.browser.close)

    def keywheel(self, *args):
        done = subprocess.run([BINARY, *args], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.returncode, 0, f"{args}: {done.stderr}")
        return done.stdout

    def test_every_kind(self):
        config = self.folder / "keywheel.toml"
        config.write_text(
            '[atlas.credentials.default]\nkind = "service-account"\nclient_id = "x"\nclient_secret = "y"\n'
            f'[mail]\nsmtp_url = "smtp://127.0.0.1:{self.box.port}"\nfrom = "keywheel@example.com"\n'
            'operators = ["ops@example.com"]\n'
        )
        config.chmod(0o600)
        kinds = self.keywheel("mail", "preview", "--help").split("Kinds:")[1].split()
        self.assertGreater(len(kinds), 60)
        for kind in kinds:
            self.keywheel("mail", "test", "ada@example.com", "--kind", kind)
        mails = self.box.mails()
        self.assertEqual(len(mails), len(kinds))
        for kind, mail in zip(kinds, mails):
            shown = self.keywheel("mail", "preview", kind, "--html")
            self.assertEqual(visible(shown).count("Sample: "), 0)
            self.judge(kind, mail)

    def test_the_keys_of_each_provider_in_mails_of_a_daemon(self):
        it = Keywheel(f'[mail]\nsmtp_url = "smtp://127.0.0.1:{self.box.port}"\nfrom = "keywheel@example.com"\n')
        self.addCleanup(it.stop)
        it.token("ada", "operator")
        keys = set()
        # One project for each provider.
        for number in (1, 5, 9):
            it.propose(number, "ada")
            keys.update(it.keys(number))
        mails = eventually(lambda: len(self.box.mails()) >= 3 and self.box.mails(), "the mails arrive")
        asked = [mail for mail in mails if "approve a new encryption key?" in mail["subject"]]
        self.assertEqual(len(asked), 3)
        text = "".join(part(mail, "plain") for mail in asked)
        for key in keys:
            self.assertIn(key, text)
        for number, mail in enumerate(asked):
            self.judge(f"asked-{number}", mail)

    def judge(self, name, mail):
        text, source = part(mail, "plain"), part(mail, "html")
        with self.subTest(mail=name):
            self.assertEqual(mail["auto-submitted"], "auto-generated")
            self.assertRegex(mail["list-id"], r"^Keywheel <keywheel[\w.-]*>$")
            self.assertIn(f">{html.escape(mail['subject'])}</h1>", source.replace("&#39;", "&#x27;").replace("&#34;", "&quot;"))
            # The text says what the HTML says: where its button leads, each command, each key.
            said = re.sub(r"\s+", " ", text)
            links = re.findall(r'href="([^"]*)"', source)
            commands = re.findall(r"<pre[^>]*>(.*?)</pre>", source, re.DOTALL)
            keys = re.findall(r"white-space:nowrap\">([^<]*)</p>", source)
            for fact in [*map(html.unescape, links), *map(visible, commands), *map(html.unescape, keys)]:
                self.assertIn(re.sub(r"\s+", " ", fact).replace(" version ", "/cryptoKeyVersions/"), said)
            self.assertLessEqual(len(links), 1)
            self.assertNotRegex(source, r"<(img|script|link)\b")
        for strip in (False, True):
            shown = re.sub(r"<style>.*?</style>", "", source, flags=re.DOTALL) if strip else source
            file = self.folder / f"{name}-{strip}.html"
            file.write_text(shown)
            self.browser.go(file.name)
            self.browser.run(AXE)
            for theme in ("light", "dark"):
                self.browser.theme(theme)
                for width in WIDTHS:
                    self.browser.size(width)
                    with self.subTest(mail=name, strip=strip, theme=theme, width=width):
                        wide = self.browser.run("return document.documentElement.scrollWidth")
                        self.assertLessEqual(wide, width, f"it scrolls sideways: {widest(self.browser, width)}")
                        self.assertEqual(widest(self.browser, width), [])
                        self.assertEqual(self.browser.run(BROKEN), [])
                        self.assertEqual(self.browser.driver.execute_async_script(JUDGE), [])


if __name__ == "__main__":
    unittest.main()
