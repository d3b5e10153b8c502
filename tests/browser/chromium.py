"""A real Chromium without a window. Whatever it complains about in its log fails the test that drives it."""

import json
import urllib.parse

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from keywheel import eventually

# Which rules of the policy were broken, for `complaints`.
VIOLATIONS = """
window.violated = [];
document.addEventListener('securitypolicyviolation', (it) => window.violated.push(it.violatedDirective + ' ' + it.blockedURI));
"""


class Chromium:
    """One person's browser, with nothing of another's."""

    def __init__(self, base, scripts=True):
        self.base = base
        options = webdriver.ChromeOptions()
        # Root may start Chromium only without its sandbox, and it opens nothing here but our own pages.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars=false"):
            options.add_argument(argument)
        options.binary_location = "/usr/bin/chromium"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(30)
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=VIOLATIONS)
        self.size(1440)

    def close(self):
        self.driver.quit()

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def size(self, width, height=900):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def theme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def go(self, path):
        self.driver.get(urllib.parse.urljoin(self.base, path))

    @property
    def path(self):
        parts = urllib.parse.urlsplit(self.driver.current_url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def find(self, selector):
        """The element, once it is there."""
        return eventually(lambda: self.all(selector), f"{selector} in {self.path}")[0]

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector="main"):
        # A part may be renewed between finding and reading it.
        for _ in range(20):
            try:
                return self.find(selector).text
            except StaleElementReferenceException:
                continue
        raise AssertionError(f"{selector} never stays")

    def says(self, text, selector="main", limit=30):
        """Waits until the page says it."""
        try:
            eventually(lambda: text in self.text(selector), text, limit)
        except AssertionError as late:
            raise AssertionError(f"{late}; {self.path} says:\n{self.text('body')}") from None

    def press(self, selector):
        self.find(selector).click()

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def sign_in(self, token):
        self.go("/login")
        self.type("#token", token)
        self.press("form[action='/login'] button")
        eventually(lambda: self.all(".who"), "signed in")

    def tab_to(self, wanted, limit=60):
        """Presses the tab key until an element is reached whose text or name it is; fails where focus cannot be seen."""
        for _ in range(limit):
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
            name, outline = self.run(
                "const it = document.activeElement; return ["
                "it.name && it.type !== 'submit' && it.tagName !== 'BUTTON' ? it.name : it.textContent.trim(), "
                "getComputedStyle(it).outlineStyle]"
            )
            assert outline != "none", f"focus on {name} is not visible"
            if name.startswith(wanted):
                return
        raise AssertionError(f"the tab key does not reach {wanted} in {self.path}")

    def key(self, text):
        self.driver.switch_to.active_element.send_keys(text)

    def cookie(self):
        return self.driver.get_cookie("__Host-keywheel")

    def complaints(self):
        """What the console said since the last time, and which rules of the policy were broken."""
        lines = [json.dumps(it) for it in self.driver.get_log("browser") if it["level"] in ("SEVERE", "WARNING")]
        try:
            lines += self.run("return window.violated || []")
        except WebDriverException:
            pass
        return lines
