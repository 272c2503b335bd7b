"""A page in a real browser: Debian's Chromium without a window, driven by selenium; nothing is downloaded."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PICTURES = os.environ.get("EXPERIMENTS_PICTURES")  # the folder that `picture` saves in; unset: it saves nothing
NEEDED = ("chromium", "chromedriver")
QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def missing() -> str:
    """What the tests of this folder lack; empty if nothing."""
    lacking = [name for name in NEEDED if not shutil.which(name)]
    lacking += [] if importlib.util.find_spec("selenium") else ["selenium"]
    return f"there is no {', no '.join(lacking)}" if lacking else ""


class Page:
    """What the browser shows. Conditions are JavaScript, polled until they hold."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.size(1600, 1000)

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def dark(self, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, url: str) -> None:
        """Show a page, also where only the part after ``#`` is another."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def ask(self, expression: str, *arguments: Any) -> Any:
        """The value of a JavaScript expression, in which `a` holds the arguments."""
        return self.driver.execute_script(f"const a = arguments; return ({expression});", *arguments)

    def until(self, expression: str, *arguments: Any, seconds: float = 60) -> Any:
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.ask(expression, *arguments)):
            if time.monotonic() > end:
                shown = self.ask("document.body.innerText")[:1000]
                raise AssertionError(f"not within {seconds} s: {expression} {arguments}\nthe page shows: {shown}")
            time.sleep(0.1)
        return value

    def click(self, selector: str, number: int = 0) -> None:
        """Press the mouse button on an element, once it is there and can be reached."""
        from selenium.common.exceptions import WebDriverException

        for attempt in range(5):
            try:
                self.until("document.querySelectorAll(a[0])[a[1]]", selector, number).click()
                return
            except WebDriverException:  # still moving, or drawn anew
                if attempt == 4:
                    raise
                time.sleep(0.5)

    def type(self, selector: str, text: str) -> None:
        self.until("document.querySelector(a[0])", selector).send_keys(text)

    def hover(self, selector: str) -> None:
        from selenium.webdriver import ActionChains

        element = self.until("document.querySelector(a[0])", selector)
        ActionChains(self.driver).move_to_element(element).perform()

    def picture(self, name: str) -> None:
        """Save what is shown, for the docs."""
        if PICTURES:
            self.driver.save_screenshot(str(Path(PICTURES) / f"{name}.png"))

    def errors(self) -> list[str]:
        """What the console has been told since the last call, of errors."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [item["params"]["request"]["url"] for item in events if item["method"] == "Network.requestWillBeSent"]


@contextmanager
def started() -> Iterator[Page]:
    """Start the browser, and end it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in (*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(argument)
    chromium, chromedriver = map(shutil.which, NEEDED)
    options.binary_location = chromium or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(chromedriver, log_output=subprocess.DEVNULL))  # no Selenium Manager
    try:
        yield Page(driver)
    finally:
        driver.quit()


@contextmanager
def serving(command: Sequence[str], **settings: Any) -> Iterator[tuple[str, int]]:
    """Start a server, with a free port as its last argument; give its address and the id of its process; end it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **settings}
    with subprocess.Popen([*command, port], start_new_session=True, **silent) as server:
        try:
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def wait_for(url: str, seconds: float = 60) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.2)
