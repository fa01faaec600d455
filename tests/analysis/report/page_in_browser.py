"""Looks at a report's page in headless Chromium: it sorts, opens, fits a phone and paper, and asks no network.

A program of its own, since a browser that hangs holds the process that drives it, whatever the timeouts.
"""

import json
import sys
from typing import Any

from playwright.sync_api import Error, sync_playwright

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# Of what can be seen: text that goes beyond the window, but for tables, which scroll by themselves.
BEYOND = """() => [...document.querySelectorAll("body *:not(.wide *):not(svg *)")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
COLOUR = "getComputedStyle(document.documentElement).backgroundColor"
FIRST = "table => [...table.tBodies].map((body) => body.rows[0].cells[0].dataset.v)"
# Containers give a browser neither what its own sandbox needs nor much shared memory.
CONTAINED = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
DOES_NOT_START = 3  # the exit code


def look(browser: Any, url: str, auc: dict[str, float], hostile: str) -> None:
    """The page of a study of these arms, whose mean AUC is given and one of which has a hostile name."""
    page = browser.new_page(viewport=DESK)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)

    table = page.locator("table.sortable").first
    by_group = table.evaluate(FIRST)
    table.get_by_role("button", name="arm", exact=True).click()
    assert table.evaluate(FIRST) == sorted(by_group)
    table.get_by_role("button", name="AUC ↑", exact=True).click()
    assert table.evaluate(FIRST) == sorted(auc, key=lambda name: -auc[name])
    table.get_by_role("button", name="AUC ↑", exact=True).click()
    assert table.evaluate(FIRST) == sorted(auc, key=lambda name: auc[name])
    assert table.locator("th[aria-sort]").count() == 1
    table.get_by_role("button", name="group").click()
    assert table.evaluate(FIRST)[0] in by_group[:2]

    body = table.locator("tbody", has=page.locator(f"th[data-v='{hostile}']"))
    command = body.locator("pre").first
    assert not command.is_visible()
    body.locator("summary").click()
    assert command.is_visible()
    assert hostile in command.inner_text()

    page.locator(".legend button", has_text="deepfm").click()
    assert page.locator("section.focused svg .chosen").count() > 3
    page.locator(".legend button", has_text="deepfm").click()
    assert page.locator("section.focused").count() == 0

    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    for size, media in ((PHONE, "screen"), (DESK, "screen"), ({"width": 720, "height": 1000}, "print")):
        page.set_viewport_size(size)
        page.emulate_media(media=media, color_scheme="dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (size, media)
        assert page.evaluate(BEYOND) == [], (size, media)
    paper = page.evaluate(COLOUR)
    page.emulate_media(media="screen", color_scheme="dark")
    assert page.evaluate(COLOUR) != paper
    page.emulate_media(media="screen", color_scheme="light")
    assert page.evaluate(COLOUR) == paper
    assert page.locator("script").count() == 1
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [url]


if __name__ == "__main__":
    chromium, url, hostile, auc = sys.argv[1:]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=CONTAINED)
        except Error as error:
            print(error, file=sys.stderr)
            sys.exit(DOES_NOT_START)
        look(browser, url, json.loads(auc), hostile)
        browser.close()
