"""A headless Chromium; tests that want one are skipped where it is not installed."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A driver of Chromium at the size of a laptop's screen."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium or chromium-driver is not installed")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1440, 1000)
    yield driver
    driver.quit()
