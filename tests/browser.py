"""A headless Chromium without a network, for tests of pages; where there is none they are skipped.

Debian: `apt-get install chromium chromium-driver`; `make test` does it where `CI` is set.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # whatever it asked for, it would not get
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage"),
)


class Browser:
    """One window; `driver` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, link: str = "") -> None:
        """Opens a page anew, at a link within it."""
        self.driver.get("about:blank")
        self.logged()
        self.driver.get(f"file://{page}{link}")

    def run(self, script: str, *given: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *given)

    def text(self, selector: str) -> str:
        """The text of an element, shown or not."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def press(self, *keys: str) -> None:
        """Types into whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def choose(self, selector: str, value: str) -> None:
        """Sets a control as a hand would."""
        self.run(
            "const control = document.querySelector(arguments[0]); control.value = arguments[1];"
            "for (const kind of ['input', 'change'])"
            "  control.dispatchEvent(new Event(kind, {bubbles: true}))",
            selector,
            value,
        )

    def click(self, selector: str) -> None:
        """Clicks on an element, wherever it is scrolled to."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def console(self) -> list[str]:
        """What the page wrote to the console since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def logged(self) -> list[str]:
        """Every address that was asked for since this was last called."""
        entries = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def size(self, width: int, height: int = 900) -> None:
        """How large the page's window is, in CSS pixels."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def prefer(self, scheme: str) -> None:
        """Light or dark, as the system would say it."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; skips the test, in words, where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    from selenium.webdriver.chrome.service import Service

    driver = selenium.Chrome(options=options, service=Service(programs[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
