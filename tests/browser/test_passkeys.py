"""A passkey from its enrolment to an approval that it signs, with the browser's own virtual authenticator."""

import unittest

from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

from chromium import Chromium
from keywheel import FAST, Keywheel, eventually

POLICY = """
[policy]
approval_method = "passkey"
"""


def authenticator(browser, **more):
    """A phone or a key ring that verifies its user."""
    options = VirtualAuthenticatorOptions()
    options.has_user_verification = True
    options.is_user_verified = True
    options.has_resident_key = True
    for name, value in more.items():
        setattr(options, name, value)
    browser.driver.add_virtual_authenticator(options)


class Passkeys(unittest.TestCase):
    def setUp(self):
        self.it = Keywheel(FAST + POLICY)
        self.addCleanup(self.it.stop)
        self.it.token("ada", "operator")
        self.it.token("grace", "approver")
        self.browser = self.another()
        authenticator(self.browser)

    def another(self, **options):
        browser = Chromium(self.it.url, **options)
        self.addCleanup(browser.close)
        return browser

    def enrol(self, name):
        self.browser.go("/you")
        self.browser.type("#name", name)
        self.browser.press("button[value=enrol]")
        self.browser.says(name)

    def test_enrolled_confirmed_and_signing(self):
        rotation = self.it.propose(1, "ada")
        browser = self.browser
        browser.sign_in(self.it.tokens["grace"])
        browser.go(f"/rotations/{rotation}")
        browser.says("has no passkey that counts")
        self.assertEqual(browser.all("button[value^=approve]"), [])

        self.enrol("Phone")
        browser.says("To confirm")
        # The device that has one is not asked for another.
        browser.type("#name", "Phone again")
        browser.press("button[value=enrol]")
        browser.says("This device has a passkey for these pages already. Nothing was changed.")
        self.assertEqual(browser.complaints(), [])

        admin = self.another()
        admin.sign_in(self.it.tokens["admin"])
        admin.go("/you")
        admin.says("grace@example.com: Phone")
        admin.type("[name=code]", "0000-0000-0000")
        admin.press("button[value=confirm-other]")
        admin.says("it is not the code of this passkey")
        self.assertTrue(any("422" in line for line in admin.complaints()))
        browser.go("/you")
        admin.type("[name=code]", browser.text("li .whole"))
        admin.press("button[value=confirm-other]")
        eventually(lambda: not admin.all("button[value=confirm-other]"), "confirmed")
        self.assertEqual(admin.complaints(), [])

        browser.go("/you")
        browser.says("It counts since")
        browser.go(f"/rotations/{rotation}")
        browser.press("button[value=approve-passkey]")
        browser.says("That is not the end of the new key. Nothing was decided.")
        self.assertTrue(any("422" in line for line in browser.complaints()))
        browser.type("#tail", self.it.rotation(rotation)["newKeyTail"])
        browser.press("button[value=approve-passkey]")
        browser.says("Completed", ".head .pill")
        votes = self.it.rotation(rotation)["approvals"]["given"]
        self.assertEqual([(vote["by"], vote["method"]) for vote in votes], [("grace", "passkey")])
        self.assertEqual(browser.complaints(), [])

    def test_a_device_that_verifies_nobody_signs_nothing(self):
        browser = self.browser
        browser.driver.remove_virtual_authenticator()
        authenticator(browser, has_user_verification=False, is_user_verified=False)
        browser.sign_in(self.it.tokens["grace"])
        browser.go("/you")
        browser.type("#name", "Old key")
        browser.press("button[value=enrol]")
        browser.says("The passkey was not used")
        browser.go("/you")
        self.assertNotIn("Old key", browser.text())

    def test_without_scripts_it_says_what_is_missing(self):
        browser = self.another(scripts=False)
        browser.sign_in(self.it.tokens["grace"])
        browser.go("/you")
        browser.says("Passkeys need JavaScript.")
        browser.type("#name", "Phone")
        browser.press("button[value=enrol]")
        browser.says("Your browser did not answer with a passkey.")


if __name__ == "__main__":
    unittest.main()
