"""A supervised child: started again with growing pauses, ended when asked, killed when it does not listen."""

import itertools
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lambdahat.stack import process
from lambdahat.stack.address import local_url, pick_port
from lambdahat.stack.errors import StackError
from lambdahat.stack.process import Child, Program, run


def program(tmp_path: Path, code: str, stop_seconds: float = 5.0) -> Program:
    return Program("child", [sys.executable, "-c", code], tmp_path / "child.log", stop_seconds=stop_seconds)


def wait_for(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dead_child_is_started_again_with_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONGEST_DELAY", 0.3)
    child = Child(program(tmp_path, "print('out of order'); raise SystemExit(3)"), _delay=0.1)
    news: list[tuple[float, str]] = []
    with child.running():
        deadline = time.monotonic() + 20
        while len(news) < 4:
            if line := child.watch():
                news.append((time.monotonic(), line))
            assert time.monotonic() < deadline
            time.sleep(0.005)
    assert child.restarts == 3
    assert [line.rsplit(" in ", 1)[1] for _, line in news] == ["0.1 s", "0.2 s", "0.3 s", "0.3 s"]
    assert all("exit code 3" in line and "out of order" in line and "child.log" in line for _, line in news)
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(news)]
    assert gaps[0] > 0.1
    assert gaps[1] > 0.2


def test_a_child_that_cannot_start_again_is_told_and_tried_again(tmp_path: Path) -> None:
    starts = 0

    def before() -> None:
        nonlocal starts
        starts += 1
        if starts == 2:
            raise StackError("the disk is gone")

    child = Child(Program("child", [sys.executable, "-c", ""], tmp_path / "log", before=before), _delay=0.05)
    news: list[str] = []
    with child.running():
        wait_for(lambda: news.append(child.watch() or "") or starts == 3)
    assert [line for line in news if "can't be started (the disk is gone)" in line]


def test_a_healthy_time_forgets_the_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HEALTHY_AFTER", 0.0)
    child = Child(program(tmp_path, ""), _delay=8.0)
    with child.running():
        news = []
        wait_for(lambda: bool(news.append(child.watch()) or news[-1]))
        assert f"in {process.FIRST_DELAY:g} s" in str(news[-1])


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = Child(program(tmp_path, deaf, stop_seconds=0.2))
    child.start()
    child.wait_until(lambda: "deaf" in (tmp_path / "child.log").read_text(), 10)
    pid = child.pid
    assert pid is not None
    child.stop()
    assert child.pid is None
    assert not psutil.pid_exists(pid)


def test_the_stop_signal_is_sent_once(tmp_path: Path) -> None:
    counting = """
import signal, time
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGTERM, handler)
print("listening", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    time.sleep(0.05)
print("signals:", count, flush=True)
"""
    child = Child(program(tmp_path, counting))
    child.start()
    child.wait_until(lambda: "listening" in (tmp_path / "child.log").read_text(), 10)
    child.ask_to_stop()
    time.sleep(0.2)
    child.stop()
    assert "signals: 1" in (tmp_path / "child.log").read_text()


def test_readiness_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "raise SystemExit('no memory')"))
    with child.running(), pytest.raises(StackError, match=r"(?s)child did not start: exit code 1.*no memory"):
        child.wait_until(lambda: False, 10)
    slow = Child(program(tmp_path, "import time; time.sleep(60)"))
    with slow.running(), pytest.raises(StackError, match=r"not ready after 0\.1 s"):
        slow.wait_until(lambda: False, 0.1)


def test_a_child_sees_default_signals_and_its_own_session(tmp_path: Path) -> None:
    code = (
        "import os, signal; print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, "
        "os.read(0, 9))"
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(program(tmp_path, code), 10).strip() == "True True b''"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_that_fails_or_hangs_says_so(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"(?s)exit code 1.*no such table"):
        run(program(tmp_path, "raise SystemExit('no such table')"), 10)
    with pytest.raises(StackError, match=r"longer than 0\.2 s"):
        run(program(tmp_path, "import time; time.sleep(60)"), 0.2)


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONGEST_LOG", 10)
    (tmp_path / "child.log").write_text("x" * 11)
    with Child(program(tmp_path, "")).running():
        pass
    assert (tmp_path / "child.log.1").read_text() == "x" * 11


def test_ports() -> None:
    port = pick_port("127.0.0.1", 0)
    assert 1024 <= port < 65536
    assert pick_port("127.0.0.1", port) == port
    with pytest.raises(StackError, match="Can't listen on"):
        pick_port("no-such-host.invalid", 0)
    assert local_url("0.0.0.0", 8000) == "http://127.0.0.1:8000"
    assert local_url("::", 8000) == "http://[::1]:8000"
    assert local_url("lab.example", 80) == "http://lab.example:80"
