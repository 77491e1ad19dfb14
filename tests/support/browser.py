"""A headless Chromium, and a TensorBoard for it to open."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("BROWSER_PATH") or next((path for name in BROWSERS if (path := shutil.which(name))), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=30_000)  # ms; pages are slow while all tests run
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")


@contextmanager
def browser(profile: Path) -> Iterator[BrowserContext]:
    """A browser with one open page, and its profile in an empty folder."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile), executable_path=BROWSER, args=OPTIONS, viewport={"width": 1500, "height": 900}
        )
        yield context
        context.close()


def faults_of(page: Page) -> list[str]:
    """What the browser will complain of: errors, dialogs, and requests to other machines."""
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    def on_request(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname != "127.0.0.1":
            faults.append(f"request to {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(f"{error} {error.stack}"))
    page.on("request", on_request)
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.set_default_timeout(60_000)
    return faults


@contextmanager
def served(folder: Path, output: Path) -> Iterator[str]:
    """The address of a TensorBoard over a folder, once it has read the runs in it."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    num_runs = len({path.parent for path in folder.rglob("events.out.tfevents.*")})
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([*command, "--reload_interval", "1"], stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", output.read_text(encoding="utf-8"))) or (
            len(json.load(urlopen(f"{found[0]}/data/runs", timeout=20))) < num_runs
        ):
            assert process.poll() is None, output.read_text(encoding="utf-8")
            assert time.monotonic() < end, output.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield found[0]
    finally:
        process.terminate()
        process.wait(timeout=10)
