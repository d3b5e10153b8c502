"""Pictures of every page, at the widths of a phone and of a desk, light and dark, as small files in docs/screens."""

import io
import pathlib
import re
import sys
import time

from PIL import Image

from chromium import Chromium
from keywheel import Keywheel
from pages import crawl, ended, under_way, year

COLOURS = 32
# Below it a picture says nothing new.
HIGHEST = 2400


def take(browser, folder, name):
    for theme in ("light", "dark"):
        browser.theme(theme)
        for width in (360, 1440):
            browser.size(width)
            height = min(browser.run("return document.documentElement.scrollHeight"), HIGHEST)
            browser.size(width, height)
            shot = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
            file = folder / f"{name}-{width}-{theme}.png"
            shot.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
            print(f"{file} {file.stat().st_size // 1024} kB")


def named(it, path):
    """A name for the file: the first part of the path, and of a rotation its state."""
    first = path.strip("/").split("/")[0] or "home"
    rotation = re.match("/rotations/([^?]*)$", path)
    return f"rotation-{it.rotation(rotation[1])['state'].replace('_', '-')}" if rotation else first


def visit(it, folder, taken):
    browser = Chromium(it.url)
    try:
        browser.sign_in(it.tokens["you"])
        for path in crawl(it, f"__Host-keywheel={browser.cookie()['value']}"):
            name = named(it, path)
            if "?" not in path and name not in taken:
                taken.add(name)
                browser.go(path)
                take(browser, folder, name)
    finally:
        browser.close()


def calendar(folder):
    """The calendar of a year with a freeze; in the other scenes it has little to show."""
    it = year()
    try:
        browser = Chromium(it.url)
        browser.sign_in(it.tokens["you"])
        browser.go("/calendar")
        take(browser, folder, "calendar")
        browser.close()
    finally:
        it.stop()


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    calendar(folder)
    it = Keywheel()
    try:
        browser = Chromium(it.url)
        browser.go("/login")
        take(browser, folder, "login")
        it.token("you", "admin", "approver")
        browser.sign_in(it.tokens["you"])
        take(browser, folder, "home-empty")
        browser.close()
        under_way(it)
        # A few readings for the strip.
        time.sleep(80)
        taken = {"calendar"}
        visit(it, folder, taken)
    finally:
        it.stop()
    it = ended()
    try:
        visit(it, folder, taken)
    finally:
        it.stop()


if __name__ == "__main__":
    main(sys.argv[1])
