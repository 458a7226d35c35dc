"""The reference at /docs, in a browser that may ask nobody but the service."""

from playwright.sync_api import BrowserContext, Page, expect

from tests.api.reverse_proxy import PATH, reverse_proxy
from tests.lambdahat.service import Service


def expect_operations(page: Page) -> None:
    """Those of /openapi.json."""
    expect(page.get_by_text("/v1/series/{series_id}/curve").first).to_be_visible()
    expect(page.get_by_text("Local learning coefficients, with error bars").first).to_be_visible()


def test_the_reference_needs_no_internet(context: BrowserContext, service: Service) -> None:
    page = context.new_page()
    page.goto(f"{service.url}/docs")
    expect_operations(page)


def test_the_reference_tries_a_request(context: BrowserContext, service: Service, key: str) -> None:
    page = context.new_page()
    page.goto(f"{service.url}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(key)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    operation = page.locator(".opblock", has_text="/v1/usage")
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response-col_status").last).to_have_text("200")


def test_the_reference_under_a_path(context: BrowserContext, environment: dict[str, str]) -> None:
    with (
        Service(environment | {"LAMBDAHAT_ROOT_PATH": PATH}) as service,
        reverse_proxy(service.url, strip=True) as url,
    ):
        page = context.new_page()
        page.goto(f"{url}/docs")
        expect_operations(page)
        page.close()
