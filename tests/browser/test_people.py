"""What people do with the pages, in a real browser: sign in, decide, watch, and what others try in their place."""

import re
import signal
import unittest
import urllib.parse

from selenium.webdriver.common.keys import Keys

from chromium import Chromium
from keywheel import FAST, Keywheel, eventually, group


class People(unittest.TestCase):
    """One installation, and one project for each test."""

    @classmethod
    def setUpClass(cls):
        cls.it = Keywheel(FAST)
        cls.addClassCleanup(cls.it.stop)
        cls.it.token("ada", "operator")
        cls.it.token("grace", "approver")
        cls.it.token("linus", "approver")
        cls.browser = Chromium(cls.it.url)
        cls.addClassCleanup(cls.browser.close)

    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [])
        self.browser.driver.delete_all_cookies()

    def given(self, rotation):
        return [vote["by"] for vote in self.it.rotation(rotation)["approvals"]["given"]]

    def opened(self, name, rotation, browser=None):
        """The browser of a person who has signed in and opened a rotation."""
        browser = browser or self.browser
        browser.sign_in(self.it.tokens[name])
        browser.go(f"/rotations/{rotation}")
        return browser

    def another(self, **options):
        browser = Chromium(self.it.url, **options)
        self.addCleanup(browser.close)
        return browser

    def approve(self, browser, rotation):
        browser.type("#tail", self.it.rotation(rotation)["newKeyTail"])
        browser.press("button[value=approve]")

    def test_an_approver_decides_and_watches_it_complete(self):
        rotation = self.it.propose(1, "ada")
        browser = self.browser
        browser.go(f"/rotations/{rotation}")
        self.assertEqual(browser.text("h1"), "Sign in")
        browser.type("#token", "kw_wrong")
        browser.press("form button")
        browser.says("This token is not known or was revoked.")
        self.assertTrue(browser.driver.title.startswith("Error: "))
        self.assertTrue(any("401" in line for line in browser.complaints()))
        browser.type("#token", self.it.tokens["grace"])
        browser.press("form button")
        # Back on the page one came from.
        browser.says("Approve a new key for payments-prod?", "h1")
        self.assertEqual(browser.path, f"/rotations/{rotation}")
        for text in (*self.it.keys(1), "due on 1 Dec", "ada"):
            browser.says(text)

        browser.type("#tail", "abcdef")
        browser.press("button[value=approve]")
        browser.says("That is not the end of the new key. Nothing was decided.")
        self.assertTrue(browser.driver.title.startswith("Error: "))
        self.assertEqual(browser.find("#tail").get_attribute("value"), "abcdef")
        self.assertEqual(self.given(rotation), [])
        self.assertTrue(any("422" in line for line in browser.complaints()))

        self.approve(browser, rotation)
        eventually(lambda: not browser.all("#tail"), "the page after the decision")
        browser.run("window.marked = true")
        seen = set()

        def completed():
            seen.add(browser.text(".head .pill"))
            return "Completed" in seen

        eventually(completed, "completed")
        self.assertTrue(browser.run("return window.marked"), "the page was loaded again")
        self.assertTrue(seen & {"Verifying", "Deploying"}, seen)
        browser.says("Proving that it works", ".steps")
        browser.says("It has ended.")
        self.assertTrue(browser.all(".strip .true"))
        self.assertEqual(self.given(rotation), ["grace"])

    def test_a_rejection_needs_a_comment(self):
        rotation = self.it.propose(2, "ada")
        browser = self.opened("grace", rotation)
        browser.press("button[value=reject]")
        browser.says("Write a comment to reject.")
        self.assertEqual(self.it.rotation(rotation)["state"], "awaiting_approval")
        self.assertTrue(any("422" in line for line in browser.complaints()))
        browser.type("#comment", "the wrong account")
        browser.press("button[value=reject]")
        browser.says("Rejected", ".pill")
        browser.says("grace rejected it")
        browser.says("\u201cthe wrong account\u201d")
        self.assertEqual(self.it.rotation(rotation)["state"], "rejected")
        self.assertFalse(browser.all("form[data-rests]"))

    def test_a_roll_back_is_followed_without_loading_again(self):
        # Its second key passes the check at the PATCH, and fails on the nodes.
        rotation = self.it.propose(4, "ada")
        browser = self.opened("linus", rotation)
        browser.run("window.marked = true")
        self.it.approve(rotation, "grace")
        # Linus had the form open: he is told, and can send nothing any more.
        browser.says("This proposal changed. Look again.")
        self.assertFalse(browser.all("form[data-rests] button"))
        browser.press("form[data-rests] [role=alert] a")
        browser.run("window.marked = true")
        browser.says("Rolled back", ".pill", 60)
        self.assertTrue(browser.run("return window.marked"), "the page was loaded again")
        for step in ("Old key sent", "Old key seen", "Rolled back"):
            browser.says(step, ".steps")
        self.assertTrue(browser.all(".strip .false"))
        browser.says("False", ".drawn")

    def test_the_keyboard_is_enough(self):
        rotation = self.it.propose(3, "ada")
        browser = self.browser
        browser.go("/login")
        browser.tab_to("Skip to the content", 1)
        browser.key(Keys.ENTER)
        browser.tab_to("token")
        browser.key(self.it.tokens["grace"] + Keys.ENTER)
        browser.says(" you", "h1")
        browser.tab_to("Review the change")
        browser.key(Keys.ENTER)
        browser.says("Approve a new key", "h1")
        number = browser.path.rsplit("/", 1)[1]
        browser.tab_to("tail")
        browser.key(self.it.rotation(number)["newKeyTail"])
        browser.tab_to("comment", 1)
        browser.key("read twice")
        browser.tab_to("Approve this one change", 1)
        browser.key(Keys.ENTER)
        eventually(lambda: self.given(number) == ["grace"], "approved")
        if number != rotation:
            self.it.api("POST", f"/rotations/{rotation}/cancel", {})

    def test_without_scripts_all_of_it_works(self):
        rotation = self.it.propose(5, "ada")
        browser = self.opened("grace", rotation, self.another(scripts=False))
        browser.says("As of ")
        browser.says("Renew now")
        self.assertNotIn("every 15 s", browser.text())
        self.assertFalse(browser.all("meta[http-equiv=refresh]"))
        self.approve(browser, rotation)
        self.it.reaches(rotation, "verifying", "deploying", "completed")
        if self.it.rotation(rotation)["state"] != "completed":
            browser.go(f"/rotations/{rotation}?every=15")
        self.it.reaches(rotation, "completed")
        browser.go(f"/rotations/{rotation}")
        browser.says("Completed", ".pill")
        self.assertNotIn("Renew now", browser.text())
        self.assertEqual(self.given(rotation), ["grace"])

    def test_a_page_without_a_form_offers_to_renew_itself(self):
        rotation = self.it.propose(6, "ada")
        self.it.token("vera", "viewer")
        browser = self.opened("vera", rotation, self.another(scripts=False))
        browser.press("a[href='?every=15'], a[href$='every=15']")
        self.assertEqual(browser.find("meta[http-equiv=refresh]").get_attribute("content"), "15")
        browser.says("Stop renewing")
        browser.press("noscript a[href$='every=15'], .renew a:last-child")
        self.assertFalse(browser.all("meta[http-equiv=refresh]"))

    def test_loading_again_in_the_middle_sends_nothing_twice(self):
        rotation = self.it.propose(7, "ada")
        browser = self.opened("grace", rotation)
        self.approve(browser, rotation)
        eventually(lambda: not browser.all("#tail"), "the page after the decision")
        browser.driver.refresh()
        browser.driver.refresh()
        browser.says("Completed", ".pill", 60)
        self.assertEqual(self.given(rotation), ["grace"])
        self.assertEqual(self.it.rotation(rotation)["attempts"], 1)

    def test_two_people_at_once_are_one_approval(self):
        rotation = self.it.propose(9, "ada")
        hers = self.opened("grace", rotation)
        his = self.opened("linus", rotation, self.another(scripts=False))
        tail = self.it.rotation(rotation)["newKeyTail"]
        hers.type("#tail", tail)
        his.type("#tail", tail)
        hers.press("button[value=approve]")
        eventually(lambda: self.given(rotation) == ["grace"], "approved")
        his.press("button[value=approve]")
        his.find("[role=alert]")
        self.assertEqual(self.given(rotation), ["grace"])
        self.it.reaches(rotation, "completed")

    def test_a_page_that_hears_nothing_says_since_when(self):
        rotation = self.it.propose(10, "ada")
        browser = self.opened("linus", rotation)
        server = self.it.running[1]
        server.send_signal(signal.SIGSTOP)
        try:
            # A minute passes for the page.
            browser.run("window.real = Date.now; Date.now = () => window.real() + 60000")
            browser.says("Not live since ", "#not-live")
            browser.says("UTC; trying again.", "#not-live")
        finally:
            server.send_signal(signal.SIGCONT)
        browser.run("Date.now = window.real")
        eventually(lambda: not browser.find("#not-live").is_displayed(), "it is live again")
        self.it.api("POST", f"/rotations/{rotation}/cancel", {})
        browser.says("This proposal changed. Look again.")

    def test_a_live_page_ends_with_its_session(self):
        rotation = self.it.propose(10, "ada")
        browser = self.opened("linus", rotation)
        other = self.opened("linus", rotation, self.another())
        other.press("button[name=everywhere][value=yes]")
        browser.says("You are signed out.", "#not-live")
        self.assertTrue(any("EventSource" in line for line in browser.complaints()))
        browser.driver.refresh()
        self.assertEqual(browser.text("h1"), "Sign in")
        self.it.api("POST", f"/rotations/{rotation}/cancel", {})

    def test_a_tampered_cookie_and_a_foreign_form_change_nothing(self):
        rotation = self.it.propose(11, "ada")
        browser = self.opened("grace", rotation)
        # A cookie with this prefix takes no domain, and the one of the page is meant.
        good = {name: value for name, value in browser.cookie().items() if name != "domain"}
        other = self.opened("linus", rotation, self.another())
        foreign = other.find("input[name=form]").get_attribute("value")
        tail = self.it.rotation(rotation)["newKeyTail"]
        browser.run("document.querySelector('form[data-rests] input[name=form]').value = arguments[0]", foreign)
        browser.type("#tail", tail)
        browser.press("button[value=approve]")
        browser.says("Nothing was changed.")
        self.assertTrue(any("403" in line for line in browser.complaints()))
        browser.go(f"/rotations/{rotation}")
        browser.driver.delete_all_cookies()
        browser.driver.add_cookie({**good, "value": good["value"][:-1] + ("A" if good["value"][-1] != "A" else "B")})
        browser.type("#tail", tail)
        browser.press("button[value=approve]")
        self.assertEqual(browser.text("h1"), "Sign in")
        self.assertEqual(self.given(rotation), [])
        # A page of another site that posts the right form, with the cookie at hand.
        browser.driver.delete_all_cookies()
        browser.driver.add_cookie(good)
        rotation_hash = self.it.rotation(rotation)["proposalHash"]
        fields = {"form": "0" * 64, "hash": rotation_hash, "decision": "approve", "tail": tail}
        inputs = "".join(f"<input name={name} value='{value}'>" for name, value in fields.items())
        page = f"<form method=post action='{self.it.url}/rotations/{rotation}'>{inputs}<button>go</button></form>"
        browser.driver.get("data:text/html," + urllib.parse.quote(page))
        browser.press("button")
        eventually(lambda: browser.driver.current_url.startswith("http"), "the answer")
        self.assertEqual(self.given(rotation), [])
        browser.complaints()
        self.it.api("POST", f"/rotations/{rotation}/cancel", {})

    def test_a_mail_scanner_approves_nothing(self):
        """Even one in the browser of an approver who is signed in: it opens all, and presses all, but types no tail."""
        rotation = self.it.propose(12, "ada")
        stranger = self.another()
        stranger.go(f"/rotations/{rotation}")
        self.scan(stranger, rotation)
        hers = self.opened("grace", rotation, self.another())
        self.scan(hers, rotation)
        self.assertEqual(self.given(rotation), [])
        self.assertEqual(self.it.rotation(rotation)["state"], "awaiting_approval")
        self.it.api("POST", f"/rotations/{rotation}/cancel", {})

    def scan(self, browser, rotation):
        start = browser.driver.current_url
        links = {it.get_attribute("href") for it in browser.all("a[href]")}
        for link in sorted(link for link in links if link.startswith(self.it.url)):
            browser.driver.get(link)
        browser.driver.get(start)
        # Signing out is a button too: the last one.
        buttons = len(browser.all("form[data-rests] button, form[action='/login'] button"))
        for typed in ("", "x", rotation[-6:], "000000"):
            for index in range(buttons):
                browser.driver.get(start)
                for field in browser.all("main input:not([type=hidden])"):
                    field.send_keys(typed)
                button = browser.all("form[data-rests] button, form[action='/login'] button")[index]
                button.click()
        browser.driver.get(start)
        for form in range(len(browser.all("form"))):
            browser.driver.get(start)
            browser.run("document.forms[arguments[0]] && document.forms[arguments[0]].submit()", form)
            eventually(lambda: browser.run("return document.readyState") == "complete", "the answer")


class Names(unittest.TestCase):
    """Names of Atlas that want to be more than names."""

    def test_names_neither_run_nor_break_the_page(self):
        it = Keywheel()
        self.addCleanup(it.stop)
        it.token("grace", "approver")
        names = [
            "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>",
            "\"><svg onload=window.ran=1> ' onfocus=window.ran=1 autofocus x='",
            "line\nbreak\r\n<h1>ended</h1>\t{{ 7 * 7 }} {% raw %}",
            "\u202egnp.dorp-stnemyap\u2066 \u200b\u0000\u0007 e\u0301\u0301\u0301",
            "w" * 4096,
        ]
        browser = Chromium(it.url)
        self.addCleanup(browser.close)
        browser.sign_in(it.tokens["grace"])
        for number, name in enumerate(names, 1):
            it.simulate("POST", f"/projects/{group(number)}", {"name": name})
            rotation = it.propose(number, reason="".join(filter(str.isprintable, name))[:2000])
            for path in ("/", f"/rotations/{rotation}"):
                browser.go(path)
                for width in (320, 1440):
                    browser.size(width)
                    with self.subTest(name=name[:20], path=path, width=width):
                        self.assertIsNone(browser.run("return window.ran || null"))
                        self.assertEqual(browser.run("return document.querySelectorAll('main script, main img').length"), 0)
                        wide = browser.run("return document.documentElement.scrollWidth")
                        self.assertLessEqual(wide, width)
                        self.assertFalse(re.search("[\u202e\u2066\u200b]", browser.text("body")))
        self.assertEqual(browser.complaints(), [])


if __name__ == "__main__":
    unittest.main()
