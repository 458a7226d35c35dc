"""The page behind a reverse proxy, under a path."""

from playwright.sync_api import BrowserContext, expect
from sqlalchemy import Engine

from lambdahat import Client
from tests.api.reverse_proxy import PATH, reverse_proxy
from tests.lambdahat import lab
from tests.lambdahat.service import Service


def test_the_page_works_under_a_path(
    context: BrowserContext, environment: dict[str, str], client: Client, engine: Engine, key: str
) -> None:
    series, _ = lab.measured_series(client, engine, "measured")
    with (
        Service(environment | {"LAMBDAHAT_ROOT_PATH": PATH}) as service,
        reverse_proxy(service.url, strip=True) as url,
    ):
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/#key={key}")
        page.locator("tbody tr").first.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(series.name)
        expect(page.locator("#picture .trace:has(.point)").first).to_be_visible()
        page.close()
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith(("data:", "blob:", f"{url}/"))] == []
