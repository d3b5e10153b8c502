"""Scenes with a page in each state that a page can have, and the pages that links lead to."""

import datetime
import re
import urllib.error
import urllib.request

from keywheel import FAST, Keywheel, group

# How many pages of one kind are visited: those of fifty projects are alike.
ALIKE = 6


def ended():
    """Rotations that ended in each way, or need an operator."""
    it = Keywheel(FAST + '[policy]\nemergency = { by = ["mail:ada@example.com"] }\n')
    it.token("ada", "operator")
    it.token("grace", "approver")
    it.token("you", "admin", "approver")
    # Two emergencies: one was reviewed, the other waits for it.
    for number in (6, 7):
        it.add(number)
        body = {"newKey": it.keys(number)[1], "emergency": True, "reason": "the old key <leaked>"}
        id = it.api("POST", f"/projects/{group(number)}/rotations", body, "ada")["id"]
        it.api("POST", f"/rotations/{id}/cancel", {"comment": "a false alarm"})
        if number == 6:
            it.api("POST", f"/rotations/{id}/review/close", {"finding": "nothing had leaked"}, "grace")
    stuck = it.propose(3, "ada")
    # Its clusters are still at it when the key service goes out of reach.
    it.simulate("POST", f"/projects/{group(3)}", {"updateTakesMs": 60000})
    done, back, rejected, cancelled = (it.propose(number, "ada") for number in (1, 4, 2, 5))
    for rotation in (stuck, done, back):
        it.approve(rotation, "grace")
    it.api("POST", f"/rotations/{rejected}/reject", {"comment": "the wrong account"}, "grace")
    it.api("POST", f"/rotations/{cancelled}/cancel", {"comment": "next week"})
    it.reaches(stuck, "verifying", "deploying")
    it.simulate("POST", f"/projects/{group(3)}", {"kmsUnreachable": True})
    it.reaches(done, "completed")
    it.reaches(back, "rolled_back")
    it.reaches(stuck, "needs_operator")
    it.rotations = [done, back, rejected, cancelled, stuck]
    return it


def under_way(it):
    """Rotations that wait, or are verified for as long as the visit takes, in an installation that had no project."""
    it.token("ada", "operator")
    it.token("grace", "approver")
    block = it.simulate("GET", "/world")["projects"][group(1)]["block"]
    it.simulate("POST", f"/projects/{group(1)}", {"block": {**block, "requirePrivateNetworking": True}})
    proving, waits = it.propose(1, "ada"), it.propose(9, "ada")
    window = {"cron": "0 0 1 1 1 *", "duration": "1h", "timezone": "Europe/Berlin"}
    it.add(7)
    it.api("PATCH", f"/projects/{group(7)}", {"policy": {"windows": [window], "executionTtl": "600d"}})
    body = {"newKey": it.keys(7)[1]}
    held = it.api("POST", f"/projects/{group(7)}/rotations", body, "ada")["id"]
    for rotation in (proving, held):
        it.approve(rotation, "grace")
    it.reaches(proving, "verifying", "deploying")
    it.rotations = [proving, waits, held]


def fetch(it, path, cookie=None):
    """The status, kind and text of a page as the server sends it."""
    request = urllib.request.Request(it.url + path, headers={"cookie": cookie} if cookie else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers.get_content_type(), refused.read().decode()


def crawl(it, cookie):
    """The pages that links lead to, from the first one, and those of the rotations: path to text."""
    kinds, pages = {}, {}
    waiting = ["/", *(f"/rotations/{id}" for id in getattr(it, "rotations", []))]
    asked = set(waiting)
    while waiting:
        path = waiting.pop(0)
        kind = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{24}|=[^&]*", "*", path)
        if kinds.get(kind, 0) >= ALIKE:
            continue
        _, content, text = fetch(it, path, cookie)
        if content != "text/html":
            continue
        kinds[kind] = kinds.get(kind, 0) + 1
        pages[path] = text
        for link in re.findall(r'href="(/[^"#]*)', text):
            link = link.replace("&amp;", "&").replace("&#38;", "&")
            if link not in asked:
                asked.add(link)
                waiting.append(link)
    return pages


def year():
    """An installation with windows on Saturdays and a freeze, in which two keys fall due, two more on one day later."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    day = lambda days: (today + datetime.timedelta(days)).isoformat()
    it = Keywheel(f"""
[policy]
windows = [{{ cron = "0 0 1 * * Sat", duration = "4h", timezone = "UTC" }}]
freezes = [{{ name = "Winter", from = "{day(20)}", to = "{day(40)}" }}]
""")
    it.token("you", "admin", "approver")
    for number, due in ((1, -2), (3, 25), (4, 31), (5, 60), (6, 60), (7, 60)):
        it.add(number)
        it.api("PATCH", f"/projects/{group(number)}", {"keySince": day(due - 90)})
    return it
