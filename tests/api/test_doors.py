"""What every request meets: how often a key may ask, how long a body may take, what an answer may be kept for."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from sqlalchemy import Engine

from api.kept import MOST_BYTES, OWN_BYTES, Kept
from tests.api.conftest import configured, new_lab, serving
from tests.api.lab import Lab, refused

RATE = 20


@pytest.fixture(scope="module")
def strict_url(environment: dict[str, str]) -> Iterator[str]:
    """A service with little patience."""
    with serving(environment | {"LAMBDAHAT_RATE_PER_SECOND": str(RATE), "LAMBDAHAT_REQUEST_SECONDS": "0.5"}) as url:
        yield url


@pytest.fixture
def strict(strict_url: str, engine: Engine, blob_dir: Path) -> Iterator[Lab]:
    with new_lab(strict_url, engine, blob_dir) as lab:
        yield lab


def test_a_key_that_asks_too_often_is_told_to_wait(
    strict: Lab, strict_url: str, engine: Engine, blob_dir: Path
) -> None:
    start = time.monotonic()
    statuses = [strict.get("/v1/whoami").status_code for _ in range(3 * RATE)]
    seconds = time.monotonic() - start
    assert set(statuses) <= {200, 429}
    assert statuses[:RATE] == [200] * RATE
    assert statuses.count(200) <= RATE * (1 + seconds) + 1
    while (response := strict.get("/v1/whoami")).status_code == 200:
        assert time.monotonic() - start < 30
    refused(response, 429, "rate_limited")
    assert response.headers["Retry-After"] == "1"
    with new_lab(strict_url, engine, blob_dir) as other:  # another's pace is its own
        assert other.get("/v1/whoami").status_code == 200
    time.sleep(1)
    assert strict.get("/v1/whoami").status_code == 200


@pytest.mark.parametrize("path", ["/v1/series", f"/v1/blobs/{'0' * 64}"])
def test_a_body_that_stops_coming_is_given_up(strict: Lab, path: str) -> None:
    before = strict.everything()
    method = "POST" if path == "/v1/series" else "PUT"
    host, port = strict.base_url.host, strict.base_url.port or 80
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {strict.api_key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, port), timeout=10) as connection:
        start = time.monotonic()
        connection.sendall(head.encode() + b'{"name":')
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert 0.4 < time.monotonic() - start < 5
    assert strict.everything() == before


def test_a_body_that_comes_slowly_is_waited_for(strict: Lab) -> None:
    def drops() -> Iterator[bytes]:
        for part in (b'{"family":', b' "mlp", ', b'"widths": [3, 4, 2]}'):
            yield part
            time.sleep(0.3)

    def body() -> Iterator[bytes]:
        yield b'{"spec": '
        yield from drops()
        yield b"}"

    response = strict.post("/v1/models:validate", content=body(), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text


def test_who_has_an_answer_is_not_sent_it_again(lab: Lab) -> None:
    series = lab.series()
    path = f"/v1/series/{series}"
    first = lab.get(path)
    etag = first.headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = lab.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert lab.get(path, headers={"If-None-Match": '"other"'}).json() == first.json()
    lab.patch(path, json={"name": "another name"})
    changed = lab.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["name"]) == (200, "another name")
    lab.checkpoint(series, 0)
    lab.job(series)
    curve = lab.get(f"{path}/curve", params={"format": "csv"})
    assert (
        lab.get(f"{path}/curve", params={"format": "csv"}, headers={"If-None-Match": curve.headers["ETag"]}).status_code
        == 304
    )


def test_answers_say_what_browsers_may_do_with_them(lab: Lab, url: str) -> None:
    for response in (
        lab.get("/v1/whoami"),
        httpx.get(f"{url}/"),
        httpx.get(f"{url}/nowhere"),
        httpx.get(f"{url}/v1/jobs"),
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
    assert lab.get("/v1/whoami").headers["Cache-Control"] == "private, no-cache"
    made = lab.post("/v1/api-keys", json={"name": "secret", "scopes": ["read"]})
    assert made.headers["Cache-Control"] == "no-store"
    assert "ETag" not in made.headers


def test_many_threads_share_one_bucket(strict: Lab) -> None:
    answered = []

    def ask() -> None:
        with httpx.Client(base_url=strict.base_url, headers=strict.headers) as client:
            answered.extend(client.get("/v1/whoami").status_code for _ in range(RATE))

    start = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered.count(200) <= RATE * (1 + time.monotonic() - start) + 1
    assert answered.count(429) > 0


def test_what_is_kept_is_made_once_and_not_too_much_of_it() -> None:
    kept, made = Kept(), []

    def make(name: str, size: int) -> bytes:
        def now() -> bytes:
            made.append(name)
            return b"x" * size

        return kept.get(name, now)

    third = MOST_BYTES // 3 - 2 * OWN_BYTES
    assert [len(make(name, third)) for name in ("a", "b", "c", "a")] == [third] * 4
    assert made == ["a", "b", "c"]
    make("d", third)  # for which b goes
    make("a", third)
    make("b", third)
    assert made == ["a", "b", "c", "d", "b"]
    assert len(make("larger", MOST_BYTES + 1)) == MOST_BYTES + 1
    make("a", 1)
    make(third * "long", 1)  # a question counts as much as its answer
    make("a", 1)
    assert made[-3:] == ["a", third * "long", "a"]


def test_reads_wait_for_nothing_that_takes_long(environment: dict[str, str], lab: Lab) -> None:
    """Every thread that uploads, conversions and pictures have is taken."""
    app = configured(environment)
    series = lab.series()
    lab.checkpoint(series, 0)
    job = lab.job(series)
    paths = ("/v1/whoami", f"/v1/jobs/{job}", "/v1/series", "/healthz")

    async def ask() -> list[int]:
        for threads in (current_default_thread_limiter(), app.state.shared.drawing_threads):
            while threads.available_tokens:
                threads.acquire_on_behalf_of_nowait(object())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=lab.headers) as client:
            return [(await asyncio.wait_for(client.get(path), 10)).status_code for path in paths]

    assert asyncio.run(ask()) == [200] * len(paths)
    app.state.shared.reads.dispose()
