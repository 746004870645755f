"""A day in the browser: a folder becomes a style, is materialised, and its lineage and evaluation are looked at."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SAMPLES, quick_profile

pytestmark = pytest.mark.thorough

PRESET = """
[presets.quick]
generated_samples = { budget = 16, held_out_products = 3 }
lora_weights = { steps = 4 }
evaluation_report = { products = 3 }
"""
SOON, LONG = 60.0, 300.0
"""Seconds that a page, and a run, may take; far more than they need."""


class Page:
    """What a person does in the Dagster UI: opens, reads, clicks, waits."""

    def __init__(self, browser: Any, address: str, pictures: Path) -> None:
        self.browser, self.address, self.pictures = browser, address, pictures

    def open(self, path: str) -> None:
        self.browser.get(self.address + path)

    def wait_for(self, what: Callable[[], Any], why: str, seconds: float = SOON) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := what():
                return found
            time.sleep(0.5)
        self.shoot("failed")
        raise AssertionError(f"{why}\n{self.text()[:2000]}")

    def text(self) -> str:
        return str(self.browser.execute_script("return document.body.innerText"))

    def sees(self, *words: str, seconds: float = SOON) -> None:
        self.wait_for(lambda: all(word in self.text() for word in words), f"the page never said {words}", seconds)

    def click(self, xpath: str) -> None:
        found = self.wait_for(lambda: self.browser.find_elements("xpath", xpath), f"there is no {xpath}")
        self.browser.execute_script("arguments[0].click()", found[0])

    def pictures_shown(self) -> list[str]:
        """Addresses of the pictures of the data root that are really drawn."""
        script = "return [...document.images].filter(i => i.complete && i.naturalWidth > 1).map(i => i.src)"
        return [link for link in self.browser.execute_script(script) if "/fashion/" in link]

    def shoot(self, name: str) -> None:
        self.browser.save_screenshot(str(self.pictures / f"{name}.png"))


@pytest.fixture
def served(browser: Any, tmp_path: Path) -> Iterator[tuple[Page, Store]]:
    """`fashion-pipeline ui` on a fresh data root, with its web server and daemon; and a browser."""
    profile = tmp_path / "quick.toml"
    text = Path(quick_profile()).read_text(encoding="utf-8")
    profile.write_text(re.sub(r"\n\[presets.*", PRESET, text, flags=re.S), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"FASHION_PIPELINE_DATA": str(tmp_path / "data"), "FASHION_PIPELINE_PROFILE": str(profile)}
    ui = subprocess.Popen(
        [sys.executable, "-m", "fashion_pipeline.cli", "ui", "--port", str(port)],
        env=os.environ | settings,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page = Page(browser, f"http://127.0.0.1:{port}", tmp_path)
    try:
        page.wait_for(lambda: answers(page.address), "the UI never answered")
        yield page, Store(tmp_path / "data")
    finally:
        ui.send_signal(signal.SIGTERM)
        try:
            assert ui.wait(60) == 0, "the UI did not end well"
        finally:
            if ui.poll() is None:
                os.killpg(ui.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_folder_becomes_a_style_that_is_materialised_and_looked_at_in_the_browser(
    served: tuple[Page, Store],
) -> None:
    page, store = served
    folder = store.raw_folder / "Rain Coat"
    folder.mkdir(parents=True)
    for photo in sorted((SAMPLES / "coat").glob("*.png"))[:40]:
        shutil.copy(photo, folder)

    page.open("/locations/fashion_pipeline/sensors/new_photos")
    page.sees("becomes a style", "Sensor has never run")
    page.click("//input[@type='checkbox']")
    page.sees("1 partition created")
    page.shoot("1-sensor")

    page.open("/locations/fashion_pipeline/jobs/full_pipeline_quick")
    page.sees("budget 16")
    page.click("//button[contains(., 'Materialize all')]")
    page.click("//button[normalize-space()='All']")
    page.sees("1 partition")
    page.click("//button[contains(., 'Launch 1 run')]")
    page.wait_for(lambda: "Partition selection" not in page.text(), "the run was not launched")
    page.open("/runs")
    page.sees("full_pipeline_quick", "rain-coat")
    page.wait_for(lambda: "Success" in page.text() or "Failure" in page.text(), "the run never ended", LONG)
    page.shoot("2-runs")
    assert "Success" in page.text() and "reason: started by hand in the Dagster UI" in page.text()
    assert "profile: quick" in page.text() and "style: rain-coat" in page.text()

    page.open("/asset-groups/")
    page.sees("catalog", "prompts", "training", "evaluation", "publishing")
    page.shoot("3-lineage")

    page.open("/assets/evaluation_report?view=partitions&partition=rain-coat")
    page.sees("decision", "too few to decide", "before and after", "95 % interval", "seconds", "peak memory")
    page.wait_for(lambda: len(page.pictures_shown()) >= 2, "the pictures of the evaluation are not shown")
    page.shoot("4-evaluation")
    page.click("//a[normalize-space()='open the report']")
    page.sees("Not published: 3 products are too few to decide; 40 are needed.")

    for asset, said in (("raw_images", "splits"), ("curated_subset", "captions"), ("lora_weights", "loss curve")):
        page.open(f"/assets/{asset}?view=partitions&partition=rain-coat")
        page.sees(said)
        page.wait_for(page.pictures_shown, f"the pictures of {asset} are not shown")
    page.open("/assets/raw_images?view=overview")
    page.sees("A new style", "catalog.py")
