"""Every page that links lead to, judged by others: axe-core, html-validate, and the browser's own log."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from chromium import Chromium
from keywheel import Keywheel
from pages import crawl, ended, fetch, under_way, year

WIDTHS = (320, 360, 768, 1024, 1440)
# The fonts of another machine are wider than these. WCAG 1.4.12: nothing is lost at this distance between letters.
SPACING = ("", "0.12em")
NODE = pathlib.Path(os.environ["KEYWHEEL_NODE"])
AXE = (NODE / "axe-core/axe.min.js").read_text()

JUDGE = """
const done = arguments[0];
axe.run(document, { resultTypes: ['violations'] }).then(
  (it) => done(it.violations.flatMap((rule) => rule.nodes.map((node) => rule.id + ': ' + node.target.join(' ') + ': ' + node.failureSummary))),
  (error) => done([String(error)]));
"""


class Pages(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.sent = {}

    def started(self, it):
        self.addCleanup(it.stop)
        browser = Chromium(it.url)
        self.addCleanup(browser.close)
        return browser

    def test_an_empty_installation_and_one_under_way(self):
        it = Keywheel()
        browser = self.started(it)
        self.judge(it, browser, "/login", fetch(it, "/login")[2])
        it.token("you", "admin", "approver")
        self.visit(it, browser)
        under_way(it)
        self.visit(it, browser)
        self.validate()

    def test_what_has_ended_and_what_needs_a_person(self):
        it = ended()
        self.visit(it, self.started(it))
        self.validate()

    def test_a_year_with_a_freeze(self):
        it = year()
        browser = self.started(it)
        browser.sign_in(it.tokens["you"])
        path = "/calendar"
        text = fetch(it, path, f"__Host-keywheel={browser.cookie()['value']}")[2]
        self.assertIn("2 keys fall due inside the freeze Winter", text)
        self.judge(it, browser, path, text)
        self.validate()

    def visit(self, it, browser):
        browser.driver.delete_all_cookies()
        browser.sign_in(it.tokens["you"])
        cookie = f"__Host-keywheel={browser.cookie()['value']}"
        for path, text in crawl(it, cookie).items():
            self.judge(it, browser, path, text)
        for path in ("/rotations/none", "/nothing-is-here"):
            status, kind, text = fetch(it, path, cookie)
            self.assertEqual(status, 404)
            if kind == "text/html":
                self.sent[path] = text

    def judge(self, it, browser, path, text):
        self.sent[f"{it.url}{path} {len(self.sent)}"] = text
        browser.go(path)
        browser.run("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
        browser.run(AXE)
        for theme in ("light", "dark"):
            browser.theme(theme)
            for width in WIDTHS:
                browser.size(width)
                with self.subTest(path=path, theme=theme, width=width):
                    for spacing in SPACING:
                        browser.run("document.documentElement.style.letterSpacing = arguments[0]", spacing)
                        wide = browser.run("return document.documentElement.scrollWidth")
                        self.assertLessEqual(wide, width, f"it scrolls sideways {spacing}: {widest(browser, width)}")
                    browser.run("document.documentElement.style.letterSpacing = ''")
                    # Contrast depends on the theme, what is shown and its size on the width; in between nothing is new.
                    if width in (320, 1440):
                        self.assertEqual(browser.driver.execute_async_script(JUDGE), [])
        with self.subTest(path=path):
            self.assertEqual(browser.complaints(), [])

    def validate(self):
        with tempfile.TemporaryDirectory() as folder:
            names = {}
            for number, (name, text) in enumerate(self.sent.items()):
                file = pathlib.Path(folder, f"{number}.html")
                file.write_text(text)
                names[str(file)] = name
            config = pathlib.Path(__file__).with_name("htmlvalidate.cjs")
            command = ["node", str(NODE / "html-validate/bin/html-validate.mjs"), "--config", str(config)]
            done = subprocess.run([*command, "--formatter", "json", *names], capture_output=True, text=True)
            self.assertIn(done.returncode, (0, 1), done.stderr)
            found = {
                f"{names[result['filePath']].split(' ')[0]}:{it['line']}:{it['column']} {it['ruleId']}: {it['message']}"
                for result in json.loads(done.stdout)
                for it in result["messages"]
            }
            self.assertEqual(sorted(found), [])


def widest(browser, width):
    """The elements that reach furthest over the edge."""
    return browser.run(
        "return Array.from(document.querySelectorAll('body *')).filter((it) => it.getBoundingClientRect().right > arguments[0])"
        ".slice(-4).map((it) => it.outerHTML.slice(0, 160))",
        width,
    )


if __name__ == "__main__":
    unittest.main()
