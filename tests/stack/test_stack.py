"""The whole stack as `lambdahat serve` runs it: ready with a key, mends itself, stops whole, leaves nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lambdahat.stack import Stack, StackError, serve
from tests.conftest import database_at

CHILDREN = {"postgres", "valkey", "worker", "api", "sweeper", "webhooks"}
SERVE = """
import sys
from pathlib import Path
from lambdahat.stack import serve
sys.exit(serve(Path(sys.argv[1]), "127.0.0.1", 0, 1))
"""


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A data root that the tests of this module use one after the other."""
    path = Path(tempfile.mkdtemp(prefix="lh-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def whoami(url: str, key: str) -> httpx.Response:
    return httpx.get(f"{url}/v1/whoami", headers={"Authorization": f"Bearer {key}"}, timeout=5, trust_env=False)


def ask_all(stack: Stack) -> int:
    """Ask, each time on a new connection, until every process of the API has answered; how often it took."""
    logs = [stack.root / "logs" / f"{name}.log" for name in stack.pids() if name.startswith("api")]
    asked, deadline = 0, time.monotonic() + 30
    while not all('"/healthz"' in log.read_text() for log in logs):
        assert time.monotonic() < deadline, logs
        assert httpx.get(f"{stack.url}/healthz", trust_env=False).status_code == 200
        asked += 1
    return asked


def counted(stack: Stack) -> float:
    """How often it was asked so, as /metrics has it, whichever process answers that."""
    families = text_string_to_metric_families(httpx.get(f"{stack.url}/metrics", trust_env=False).text)
    samples = (sample for family in families for sample in family.samples)
    name = "lambdahat_request_seconds_count"
    return sum(sample.value for sample in samples if sample.name == name and sample.labels["route"] == "/healthz")


def family(*pids: int) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in pids]
    return [relative for process in processes for relative in (process, *process.children(recursive=True))]


def test_it_is_ready_and_mends_itself(root: Path) -> None:
    news: list[str] = []
    children = CHILDREN | {"api-2"}
    with Stack(root, port=0, workers=1, apis=2, say=news.append) as stack:
        assert set(stack.pids()) == children
        assert httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200
        key = stack.key
        assert stack.key_is_new
        assert whoami(stack.url, key).status_code == 200
        asked = ask_all(stack)
        assert asked > 1
        time.sleep(0.1)  # what is counted is counted when it was answered
        assert {counted(stack) for _ in range(8)} == {asked}
        assert stack.key_path.read_text().strip() == key
        assert stack.key_path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(StackError, match=f"in use by process {os.getpid()}"):
            Stack(root, port=0).start()

        before = stack.pids()
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            after = stack.pids()
            if set(after) == children and not set(after.values()) & set(before.values()):
                try:
                    if httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
            assert time.monotonic() < deadline, (after, news)
            time.sleep(0.1)
        assert whoami(stack.url, key).status_code == 200
        assert counted(stack) == asked
        for name in children:
            assert [line for line in news if line.startswith(f"{name} ended (SIGKILL")]
        relatives = family(*stack.pids().values())
    assert psutil.wait_procs(relatives, timeout=0.5)[1] == []
    assert stack.pids() == {}


def test_a_lost_key_is_replaced(root: Path) -> None:
    key_path = root / "key"
    lost = key_path.read_text()
    key_path.write_text("lh_of_another_database\n")
    with Stack(root, port=0, workers=1) as stack:
        assert stack.key_is_new
        assert stack.key != lost.strip()
        assert whoami(stack.url, stack.key).status_code == 200
        assert key_path.read_text().strip() == stack.key


def test_servers_of_ones_own_are_used(
    tmp_path: Path, postgres_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ones_own")
    monkeypatch.setenv("LAMBDAHAT_DATABASE_URL", database_at(postgres_url, "ones_own"))
    monkeypatch.setenv("LAMBDAHAT_BROKER_URL", broker_url)
    with Stack(tmp_path, port=0, workers=1) as stack:
        assert set(stack.pids()) == CHILDREN - {"postgres", "valkey"}
        assert whoami(stack.url, stack.key).status_code == 200
    assert not (tmp_path / "postgres").exists()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE ones_own")


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(tmp_path / "data", port=port)
        with pytest.raises(StackError, match=f"port {port}") as caught:
            stack.start()
        assert serve(tmp_path / "data", "127.0.0.1", port, 1) == 1
    assert "--port" in caught.value.hint
    assert str(caught.value) in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) == handler
    assert stack.pids() == {}


@pytest.fixture
def process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """`serve` in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, root], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout
    lines = [process.stdout.readline()]
    while word not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended too early"
    return lines


def test_an_interrupt_stops_everything(process: subprocess.Popen[str], root: Path) -> None:
    shown = "".join(read_until(process, "Ctrl-C"))
    key = (root / "key").read_text().strip()
    assert "http://127.0.0.1:" in shown
    assert f"API key    in {root / 'key'}" in shown
    assert f"/#key={key}" in shown
    children = family(process.pid)[1:]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert psutil.wait_procs(children, timeout=0.5)[1] == []


def test_an_end_in_the_middle_of_the_start_is_an_end(process: subprocess.Popen[str], root: Path) -> None:
    read_until(process, "starting")
    postmaster = root / "postgres" / "postmaster.pid"
    deadline = time.monotonic() + 20
    while not postmaster.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = family(process.pid)[1:]
    process.terminate()
    assert process.wait(timeout=20) == 0
    assert psutil.wait_procs(children, timeout=0.5)[1] == []
    assert not postmaster.exists()


def test_no_orphan_when_the_supervisor_is_killed(process: subprocess.Popen[str]) -> None:
    read_until(process, "Ctrl-C")
    children = family(process.pid)[1:]
    assert len(children) >= len(CHILDREN)
    process.kill()
    process.wait()
    assert psutil.wait_procs(children, timeout=10)[1] == []
