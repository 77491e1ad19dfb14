"""Takes the screenshots of docs/gradient_flow_tab.md and of the HParams table: python docs/tensorboard_pictures.py

Trains a sweep, starts TensorBoard over it, and opens it in a headless Chromium, which must be installed. Two minutes.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).resolve().parent
SWEEP = [
    "task=copy_memory", "task.delay=20", "task.batch_size=16", "task.train_batches=60", "task.validation_batches=1",
    "callbacks=bias", "callbacks.truncation_bias.every_n_batches=20",
    "model=elman,gru,lstm", "estimator.chunk_size=10,40", "model.hidden_size=24",
]  # fmt: skip


def address_of(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://\S+:\d+", line):
            return found[0]
    raise RuntimeError("TensorBoard ended before it listened")


def take_tab(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1300, "height": 820})
    page.goto(f"{address}/#gradient_flow")
    tab = page.frame_locator("iframe")
    for view in ("lag", "bias"):
        tab.locator(f"button[data-view={view}]").click()
        tab.locator("#chart .main-svg").first.wait_for()
        tab.locator("#chart[aria-busy=false]").wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=HERE / f"gradient_flow_tab_{view}.png")


def take_hparams(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 2000, "height": 400})
    page.goto(f"{address}/#hparams")
    page.get_by_text("Trial ID").first.wait_for()
    page.wait_for_timeout(2000)
    page.locator("vaadin-grid").first.screenshot(path=HERE / "tensorboard_hparams.png")


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    train = [
        sys.executable,
        str(HERE.parent / "scripts" / "train.py"),
        "-m",
        *SWEEP,
        f"hydra.sweep.dir={folder / 'sweep'}",
    ]
    subprocess.run(train, check=True)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "sweep"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = address_of(server)
            time.sleep(10)  # until it has read the runs
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                take_tab(browser.new_page(), address)
                take_hparams(browser.new_page(), address)
                browser.close()
        finally:
            server.terminate()
