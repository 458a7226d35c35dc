"""A real Chromium, and the real API process with a fresh tenant."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.lambdahat.conftest import client, environment, key, service

__all__ = ["client", "environment", "key", "service"]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        # The only thing that `make test` needs and can't install: it must pass where there is no browser. The gate
        # installs Debian's first, so that there these tests do run.
        pytest.skip("the page's tests drive a Chromium, and there is none: apt install chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browser's console complains of; a test fails unless it has removed what it expected."""
    complaints: list[str] = []
    yield complaints
    assert complaints == []


@pytest.fixture
def context(browser: Browser, complaints: list[str]) -> Iterator[BrowserContext]:
    """A browser that knows nothing yet, and may ask nobody but the service."""
    strangers: list[str] = []
    with browser.new_context(viewport={"width": 1200, "height": 1000}, color_scheme="light") as context:
        context.set_default_timeout(20_000)
        context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("request", lambda request: strangers.append(request.url) if "127.0.0.1" not in request.url else None)
        yield context
    assert [url for url in strangers if not url.startswith(("data:", "blob:"))] == []
