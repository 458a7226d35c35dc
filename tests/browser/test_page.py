"""The page at /, as a researcher meets it."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import Engine

from lambdahat import Client
from lambdahat.numbers import with_error
from tests.lambdahat import curves, lab
from tests.lambdahat.service import Service

HOSTILE = '<img src="x" onerror="document.title=\'stolen\'"> & <b>bold</b>'


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """An empty tab."""
    page = context.new_page()
    yield page
    page.close()


def open_list(page: Page, service: Service, key: str) -> None:
    page.goto(f"{service.url}/#key={key}")
    expect(page.get_by_role("heading", name="Series")).to_be_visible()


def point(page: Page, step: int) -> None:
    """Put the mouse on the LLC at a step."""
    index = [s for s in curves.STEPS if s != curves.DIVERGED].index(step)
    # `force`: Plotly listens on a layer above the points.
    page.locator("#picture .trace:has(.point)").first.locator(".point").nth(index).hover(force=True)


def expect_only(complaints: list[str], what: str) -> None:
    """The console complained of this, as it had to, and of nothing else."""
    assert complaints
    assert [complaint for complaint in complaints if what not in complaint] == []
    complaints.clear()


def test_key_is_taken_from_the_address_and_leaves_it(page: Page, service: Service, key: str) -> None:
    open_list(page, service, key)
    assert key not in page.url
    assert page.evaluate("sessionStorage.getItem('key')") == key
    expect(page.locator("#tenant")).to_contain_text("test_key_is_taken")
    expect(page.get_by_text("None yet.")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Series")).to_be_visible()
    page.get_by_role("button", name="log out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_login_by_hand(page: Page, service: Service, key: str) -> None:
    page.goto(service.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Series")).to_be_visible()


def test_list_names_what_is_there(page: Page, service: Service, client: Client, engine: Engine, key: str) -> None:
    lab.new_series(client, HOSTILE, steps=())
    running = lab.new_series(client, "running", steps=(0, 1, 10))
    lab.half_way(engine, client.run(running))
    lab.measured_series(client, engine, "measured")
    open_list(page, service, key)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text(re.compile(r"measured.*mlp.*41.*0 … 1,000.*succeeded"))
    expect(rows.nth(1)).to_contain_text(re.compile(r"running.*mlp.*3.*0 … 10.*running 49 %"))
    expect(rows.nth(2).locator("td").first).to_have_text(HOSTILE)
    rows.nth(2).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.get_by_text("no job yet")).to_be_visible()
    assert page.title() == f"{HOSTILE} – lambdahat"  # and not 'stolen'


def test_picture_of_a_series(page: Page, service: Service, client: Client, engine: Engine, key: str) -> None:
    series, _ = lab.measured_series(client, engine)
    page.goto(f"{service.url}/#key={key}")
    page.get_by_role("link", name=series.name).click()
    expect(page.locator(".job .state")).to_have_text("succeeded")
    for name in ("loss", "Hessian", "near-zero share", "training step", "A", "B"):
        expect(page.locator("#picture").get_by_text(name, exact=True).first).to_be_visible()
    # Four panels with two transitions each, and the intervals of their ends; every step of the LLC has a point but the
    # one without a number.
    expect(page.locator("#picture .shapelayer path")).to_have_count(8 + 4)
    expect(page.locator("#picture .trace:has(.point)").first.locator(".point")).to_have_count(len(curves.STEPS) - 1)
    expect(page.locator("#picture .annotation-text", has_text="✕")).to_have_count(1)

    rows = page.locator("section tbody tr")
    expect(rows.nth(0)).to_contain_text(
        re.compile(r"A11 \(9 … 13\)60 \(52 … 71\)-3\.410 ± 0\.020197\.0 ± 8\.499 %100 %")
    )
    expect(rows.nth(1)).to_contain_text(
        re.compile(r"B180 \(150 … 201\)700 \(640 … 760\)-0\.031 ± 0\.011-241\.0 ± 6\.297 %63 %")
    )
    page.get_by_text("Settings of the job").click()
    expect(page.locator("details tr", has_text="measures.llc.num_chains")).to_contain_text("4")

    point(page, curves.NOT_CONVERGED)
    expect(page.locator("#picture .hoverlayer")).to_contain_text("not_converged: R-hat is 1.31, above 1.05")
    point(page, 0)
    value = curves.quantities(0)["llc"]
    expect(page.locator("#picture .hoverlayer")).to_contain_text(f"λ̂ {value['value']:.1f} ± {value['std_error']:.1f}")
    page.locator("#picture .annotation", has_text="✕").hover()
    expect(page.locator("#picture")).to_contain_text("left the numbers <b>at step 17</b>")


def test_job_moves_by_itself(page: Page, service: Service, client: Client, engine: Engine, key: str) -> None:
    series = lab.new_series(client, steps=curves.STEPS)
    page.goto(f"{service.url}/#key={key}")
    page.get_by_role("link", name=series.name).click()
    state, bar = page.locator(".job .state"), page.get_by_role("progressbar")
    points = page.locator("#picture .trace:has(.point)").first.locator(".point")
    expect(state).to_have_text("no job yet")
    job = client.run(series, checkpoints_per_shard=10)
    expect(state).to_have_text("queued")
    lab.work(engine, job, shards=2)
    expect(state).to_have_text("running")
    expect(bar).to_have_attribute("aria-valuenow", "48")
    expect(page.locator(".job")).to_contain_text(re.compile(r"48 % · .* row-steps · .*/s · .* left"))
    expect(points).to_have_count(19)  # of 20 steps, one diverged
    expect(page.get_by_text("They are found when every checkpoint is done.")).to_be_visible()
    lab.work(engine, job)
    expect(state).to_have_text("succeeded")
    expect(bar).to_have_attribute("aria-valuenow", "100")
    expect(points).to_have_count(len(curves.STEPS) - 1)
    expect(page.locator("#picture .shapelayer path")).to_have_count(12)


def test_a_job_that_follows_says_so_and_shows_new_stages(
    page: Page, service: Service, client: Client, engine: Engine, key: str
) -> None:
    """Though nothing else of it has changed."""
    series = lab.new_series(client, steps=curves.STEPS)
    job = client.run(series, checkpoints_per_shard=100, follow=True)
    lab.work(engine, job, shards=1)
    page.goto(f"{service.url}/#key={key}")
    page.get_by_role("link", name=series.name).click()
    expect(page.locator(".job")).to_contain_text(re.compile("running.*follows its series · 100 %"))
    expect(page.get_by_text("None found so far.")).to_be_visible()
    lab.work(engine, job)
    expect(page.locator("section tbody tr").first).to_contain_text("100 %", timeout=15_000)
    client.finish(job)
    expect(page.locator(".job .state")).to_have_text("succeeded")


def test_failed_job_says_why(page: Page, service: Service, client: Client, engine: Engine, key: str) -> None:
    series = lab.new_series(client)
    job = client.run(series)
    lab.fail(engine, lab.half_way(engine, job), f"no memory for {HOSTILE}")
    page.goto(f"{service.url}/#key={key}")
    page.get_by_role("link", name=series.name).click()
    expect(page.locator(".job .state")).to_have_text("failed")
    expect(page.locator(".job .error")).to_contain_text(f"no memory for {HOSTILE}")


def test_survives_a_restart_of_the_server(
    page: Page, environment: dict[str, str], client: Client, key: str, complaints: list[str]
) -> None:
    lab.new_series(client, "patient")
    with Service(environment) as service:
        open_list(page, service, key)
        service.stop()
        expect(page.get_by_role("status")).to_contain_text("No answer from the server")
        service.start()
        expect(page.get_by_role("status")).to_be_hidden()
        expect(page.get_by_role("link", name="patient")).to_be_visible()
        expect_only(complaints, "ERR_CONNECTION_REFUSED")


def test_wrong_key_is_refused(page: Page, service: Service, complaints: list[str]) -> None:
    page.goto(f"{service.url}/#key=lh_wrong")
    expect(page.get_by_role("status")).to_contain_text("does not know this key")
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    expect_only(complaints, "401")


def test_follows_the_colour_scheme(page: Page, service: Service, client: Client, engine: Engine, key: str) -> None:
    series, _ = lab.measured_series(client, engine)
    page.goto(f"{service.url}/#key={key}")
    page.get_by_role("link", name=series.name).click()
    background = page.locator("#picture .main-svg").first
    expect(background).to_have_css("background-color", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="dark")
    expect(background).to_have_css("background-color", "rgb(21, 23, 27)")


@pytest.mark.parametrize(
    ("value", "std_error"),
    [
        (36.2049, 1.43),
        (36.2049, 0.0996),
        (-0.00349, 0.000102),
        (253.4, 12.6),
        (12349.0, 678.0),
        (0.5, 99.6),
        (1.234e-8, 1.04e-9),
        (2.5e9, 1.0e8),
        (0.0, 0.012),
        (3.25, 0.0),
        (36.2049, None),
        (None, 1.0),
    ],
)
def test_numbers_are_written_as_on_the_command_line(
    page: Page, service: Service, value: float | None, std_error: float | None
) -> None:
    page.goto(service.url)
    script = "([value, error]) => import('/assets/numbers.js').then((m) => m.withError(value, error))"
    assert page.evaluate(script, [value, std_error]) == with_error(value, std_error)


def test_files_are_cached_and_locked_down(service: Service) -> None:
    page = httpx.get(service.url)
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    again = httpx.get(service.url, headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plotly = httpx.get(f"{service.url}/assets/plotly.min.js")
    assert plotly.headers["content-type"].startswith("text/javascript")
    assert "max-age" in plotly.headers["cache-control"]
    for name in ("index.html", "..%2fpages.py", "nothing.js"):
        assert httpx.get(f"{service.url}/assets/{name}").status_code == 404
