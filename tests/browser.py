"""A report in a real browser, as tests see it: Chromium without a window, and a page opened in it from disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Iterator

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
# Where this is set (.ci/run does), a test that finds no browser fails: skipped, it would look as if the page had been tested.
NEEDED = "FOLDSCAN_TESTS_NEED_BROWSER"
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-prefers-reduced-motion",
         "--window-size=1360,1000")


@contextlib.contextmanager
def started(profile: Path) -> Iterator:
    """A selenium driver of Chromium, which ends with the block; skips or fails (NEEDED) a test where there is none. profile: an
    empty folder."""
    if not (CHROMIUM and DRIVER):
        do_without("needs Chromium and its driver: on Debian, apt-get install chromium chromium-driver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        do_without("needs selenium: make test installs it")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(20)
        yield driver
    finally:
        driver.quit()


def do_without(reason: str) -> None:
    """Skip the test that asks for a browser, or fail it where one is needed."""
    if os.environ.get(NEEDED) == "1":
        pytest.fail(f"{reason} ({NEEDED}=1)", pytrace=False)
    pytest.skip(reason)


SHORT = "const first = css => document.querySelector(css), all = css => [...document.querySelectorAll(css)];"


class Tab:
    """A report as someone sees it."""

    def __init__(self, driver, path):
        self.driver, self.path = driver, path
        self.load()

    def load(self):
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.js("window.isBefore = true")
        self.driver.get(self.path.as_uri())
        # `get` may come back while the page before is still there, which may be this one, or before this one's script has run
        self.wait("return !window.isBefore && document.readyState === 'complete' && first('#facts') !== null && "
                  f"location.href.startsWith({self.path.as_uri()!r})", seconds=30)
        self.settle()

    def js(self, script: str, *arguments):
        """What a script gives; it may speak of first(selector) and all(selector)."""
        return self.driver.execute_script(SHORT + script, *arguments)

    def texts(self, selector: str) -> list[str]:
        return self.js("return all(arguments[0]).map(one => one.textContent)", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str):
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", self.one(selector))
        self.one(selector).click()
        self.settle()

    def press(self, *keys: str):
        """To what has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains
        ActionChains(self.driver).send_keys(*keys).perform()
        self.settle()

    def settle(self, milliseconds: int = 0):
        """Until the page has answered what was done: its timers of so long have run, and two frames were drawn. What a browser
        tells a page of colours, paper and scrolling it tells it with a frame, after styles have changed already."""
        self.driver.execute_async_script("const done = arguments[1]; setTimeout(() => requestAnimationFrame(() => "
                                         "requestAnimationFrame(done)), arguments[0])", milliseconds)

    def cdp(self, command: str, **parameters):
        """What the browser answers to a command, once the page has followed it."""
        answer = self.driver.execute_cdp_cmd(command, parameters)
        self.settle()
        return answer

    def wait(self, script: str, seconds: float = 20):
        """Until a script gives something true."""
        end = time.monotonic() + seconds
        while not self.js(script):
            assert time.monotonic() < end, f"still not: {script}"
            time.sleep(.02)

    def choose(self, selector: str, value: str):
        """Of a select, or into a field, as a user would, until the page has followed."""
        self.js("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
                "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))", self.one(selector), value)
        self.settle(150)  # filters wait for 120

    def rows(self) -> list[str]:
        """Cases of the whole table, also those that are made as one scrolls."""
        self.js("while (table.made < table.rows.length) moreRows()")
        return self.texts("#case-table tbody th")

    def head(self, label: str) -> str:
        """The selector of a column's button."""
        index = self.texts("#case-table thead .on-paper").index(label) + 1
        return f"#case-table thead th:nth-child({index}) button"
