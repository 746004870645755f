"""Both pages in Chromium: nothing is wrong in the console, every picture is shown, nothing is asked of the network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.reports.index import StyleEntry, render_index
from fashion_pipeline.core.reports.report import render_html
from fashion_pipeline.core.texts import languages, speaking
from fashion_pipeline_tests.core.reports.planting import EVIL, picture, planted_decision, planted_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="chromium or chromium-driver is not installed"),
]


WIDER = """
return [...document.querySelectorAll('.panel, .style, .part, header, table')]
  .filter(card => card.scrollWidth > card.clientWidth + 1 || card.getBoundingClientRect().right > window.innerWidth)
  .map(card => `${card.className || card.tagName} ${card.scrollWidth}: ${card.innerText.slice(0, 40)}`)
"""
"""What is wider than its place."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def index() -> str:
    gain = (Condition("specialised", "plain"), "judge", Interval(0.1, 0.05, 0.15, 48))
    strip = [(picture(), picture(), picture())] * 3
    version = {"published": EVIL, "waiting": EVIL, "shown": EVIL}
    figures = {"gains": [gain], "strip": strip, "photos": 9, "stale": 2}
    entry = StyleEntry(EVIL, "coat/report.html", planted_decision(), **version, **figures)
    return render_index([entry, StyleEntry("bag", None)], profile=EVIL)


def opened(browser: Any, html: str, file: Path, *, width: int, dark: bool) -> list[str]:
    """Open a page; returns the addresses that it asked for."""
    file.write_text(html, encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get_log("performance")
    browser.get(file.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (360, True)])
@pytest.mark.parametrize("page", ["report", "index"])
def test_a_page_shows_all_it_has_and_asks_for_nothing(
    browser: Any, tmp_path: Path, page: str, width: int, dark: bool, language: str
) -> None:
    with speaking(language):
        html = index() if page == "index" else render_html(planted_page())
    asked = opened(browser, html, tmp_path / "page.html", width=width, dark=dark)
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
    assert browser.get_log("browser") == []
    shown = "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
    images = browser.execute_script(shown)
    assert len(images) >= 9 and all(images)
    assert EVIL in browser.execute_script("return document.body.innerText")
    assert browser.execute_script("return document.scripts.length") == 0
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
    wide = browser.execute_script(WIDER)
    assert not wide, wide
    assert browser.execute_script("return document.documentElement.lang") == language
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    ground = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(17, 17, 19)" if dark else "rgb(255, 255, 255)")


def test_a_picture_is_enlarged_by_a_click_and_made_small_by_another(browser: Any, tmp_path: Path) -> None:
    opened(browser, render_html(planted_page()), tmp_path / "page.html", width=1280, dark=False)
    place = "return getComputedStyle(document.querySelector('.large img')).position"
    for expected in ("fixed", "static"):
        browser.execute_script("document.querySelector('.large input').click()")
        assert browser.execute_script(place) == expected
