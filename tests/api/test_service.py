"""The service itself: alive, ready, described, logged, and light."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import text

from store.keys import checksum
from tests.api.conftest import serving
from tests.api.lab import Lab, refused
from tests.receiver import eventually


def test_alive_and_ready_without_a_key(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{url}/readyz")
    parts = {"database": "ok", "migrations": "ok", "broker": "ok", "blobs": "ok"}
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "parts": parts})


def test_what_is_missing_is_said(environment: dict[str, str], postgres_url: str, tmp_path: Path) -> None:
    """No broker, a file in place of the folder, and a database without tables."""
    (tmp_path / "blobs").write_bytes(b"")
    missing = {
        "LAMBDAHAT_DATABASE_URL": postgres_url,
        "LAMBDAHAT_BROKER_URL": f"redis://127.0.0.1:{_free_port()}/0",
        "LAMBDAHAT_BLOB_DIR": str(tmp_path / "blobs"),
    }
    with serving(environment | missing) as url:
        ready = httpx.get(f"{url}/readyz")
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    parts = ready.json()["parts"]
    assert parts["database"] == "ok"
    assert "store.admin migrate" in parts["migrations"]
    assert "refused" in parts["broker"]
    assert "blobs" in parts["blobs"]


def test_a_database_that_is_away_is_a_503(environment: dict[str, str]) -> None:
    away = {"LAMBDAHAT_DATABASE_URL": f"postgresql://nobody:x@127.0.0.1:{_free_port()}/none"}
    with serving(environment | away) as url:
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["parts"]["migrations"]) == (503, "unknown")
        key = "lh_" + "0" * 32 + "_" + "a" * 32
        response = httpx.get(f"{url}/v1/series", headers={"Authorization": f"Bearer {key}{checksum(key)}"})
        refused(response, 503, "unavailable")
        assert response.headers["retry-after"] == "2"


def test_a_crash_is_a_500_that_tells_nothing_but_its_id(
    environment: dict[str, str], postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A database without tables is a fault that no code foresees."""
    with serving(environment | {"LAMBDAHAT_DATABASE_URL": postgres_url}) as url:
        key = "lh_" + "0" * 32 + "_" + "a" * 32
        response = httpx.get(f"{url}/v1/series", headers={"Authorization": f"Bearer {key}{checksum(key)}"})
    problem = refused(response, 500, "internal_error")
    assert "api_keys" not in response.text
    assert problem["request_id"] in caplog.text
    assert "Traceback" in caplog.text
    assert "a" * 32 not in caplog.text, "no secret is logged"


def test_request_ids(url: str) -> None:
    ids = {httpx.get(f"{url}/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert httpx.get(f"{url}/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 65, "<script>"):
        assert httpx.get(f"{url}/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_more_requests_at_once_than_threads_and_connections(lab: Lab) -> None:
    """They pile up behind a lock, and all of them are answered once it is released: none holds a connection while it
    waits for a thread that another holds while it waits for a connection.
    """
    with ThreadPoolExecutor(90) as pool:
        with lab.engine.begin() as connection:
            connection.execute(text("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"))
            answers = [pool.submit(lab.get, "/v1/series") for _ in range(90)]
            time.sleep(2)
            assert not any(answer.done() for answer in answers)
        start = time.monotonic()
        assert [answer.result().status_code for answer in answers] == [200] * 90
        assert time.monotonic() - start < 15


@pytest.fixture(scope="module")
def openapi(url: str) -> dict[str, Any]:
    """The service's description of itself."""
    return httpx.get(f"{url}/openapi.json").json()


def test_every_operation_is_described(openapi: dict[str, Any]) -> None:
    operations = [
        (f"{method} {path}", operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 25
    for name, operation in operations:
        assert operation["summary"], name
        if not name.startswith("get /v1") and "/v1" not in name:
            continue
        for status in ("4XX", "5XX"):
            content = operation["responses"][status]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
        assert operation["security"] == [{"HTTPBearer": []}], name
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            schema = openapi["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
            assert schema["examples"], name


def test_every_reference_leads_somewhere(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(openapi)))
    assert "Problem" in references
    assert references <= set(schemas)


def test_examples_of_the_description_are_valid(openapi: dict[str, Any], lab: Lab) -> None:
    """What a reader copies is refused for its made-up ids and hosts at most."""
    for path, methods in openapi["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if body is None:
            continue
        schema = openapi["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]
        for example in schema["examples"]:
            response = lab.post(path.replace("{series_id}", lab.series()), json=example)
            made_up = response.json().get("code") in ("not_found", "unknown_host")
            assert response.is_success or made_up, (path, response.text)


def test_the_service_never_loads_torch() -> None:
    code = "import sys, api.app; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_as_a_process(environment: dict[str, str], tmp_path: Path) -> None:
    """`python -m api` serves, logs JSON with the request's id, and ends when asked."""
    port = _free_port()
    command = [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/healthz", process)
            httpx.get(f"http://127.0.0.1:{port}/v1/whoami", headers={"X-Request-Id": "who-1"})
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert code in (0, -signal.SIGTERM)
    (request,) = [line for line in lines if line.get("request_id") == "who-1"]
    assert (request["event"], request["path"], request["status"]) == ("request", "/v1/whoami", 401)
    assert request["seconds"] >= 0


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "api", "--help"], capture_output=True, text=True, check=True)
    assert "--port" in done.stdout


def test_admin_makes_one_tenant_with_one_key(environment: dict[str, str], database_url: str) -> None:
    answers = [_admin(environment, "ensure-tenant", "--name", "the lab") for _ in range(2)]
    first, second = (json.loads(answer.stdout) for answer in answers)
    assert first["tenant"] == second["tenant"]
    assert first["key"].startswith("lh_")
    assert second["key"] is None
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT id FROM tenants WHERE name = 'the lab'").fetchall()
    assert rows == [(first["tenant"],)]


def test_admin_makes_and_revokes_keys(environment: dict[str, str], url: str) -> None:
    _admin(environment, "ensure-tenant", "--name", "keyed")
    made = json.loads(_admin(environment, "create-key", "--name", "keyed", "--label", "ci").stdout)
    headers = {"Authorization": f"Bearer {made['key']}"}
    key = httpx.get(f"{url}/v1/whoami", headers=headers).json()["key"]
    assert (key["name"], key["scopes"]) == ("ci", ["read", "write", "admin"])
    _admin(environment, "revoke-key", key["id"])
    # Another process has revoked it: this one believes a key that it has just seen for a second.
    eventually(lambda: httpx.get(f"{url}/v1/whoami", headers=headers).is_error, 3)
    refused(httpx.get(f"{url}/v1/whoami", headers=headers), 401, "unauthorized")
    unknown = _admin(environment, "create-key", "--name", "nobody", check=False)
    assert unknown.returncode == 1
    assert "there is no tenant 'nobody'" in unknown.stderr


def _admin(environment: dict[str, str], *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "store.admin", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=check)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the service ended")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
