"""What there is on this machine: packages, programs, the data root, the servers behind it."""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lambdahat.doctor import Check
from lambdahat.stack.account import server_account
from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import holder
from lambdahat.stack.supervisor import SERVER_PACKAGES

CHECK_SECONDS = 120.0
LITTLE_ROOM = 5 * 2**30
GPUS = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps([torch.__version__, names]))
"""


def check_machine(root: Path) -> Iterator[Check]:
    """Everything below the API. root: the data root."""
    missing = [package for package in SERVER_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        yield Check("packages", "broken", f"missing: {', '.join(missing)}", "pip install 'lambdahat[server]'")
        return
    yield Check("packages", "ok", f"lambdahat[server], Python {platform.python_version()}")
    yield from _programs()
    yield _gpu()
    yield from check_data_root(root)
    pid = holder(root)
    ours = {"LAMBDAHAT_DATABASE_URL", "LAMBDAHAT_BROKER_URL", "LAMBDAHAT_BLOB_DIR"}
    if pid is not None:
        yield Check("stack", "ok", f"runs as process {pid}")
    elif not ours <= set(os.environ):
        yield Check("stack", "warning", f"does not run in {root}", "lambdahat serve starts it")
        return
    yield from _servers(environment_of(root))


def environment_of(root: Path) -> dict[str, str]:
    """The variables that name the servers of a data root, where the environment names no others."""
    from lambdahat.stack import postgres, valkey

    named = {"LAMBDAHAT_BLOB_DIR": str(root / "blobs")}
    secrets = root / "secrets.json"
    if secrets.exists():
        passwords, run = json.loads(secrets.read_text()), (root / "run").resolve()
        named["LAMBDAHAT_DATABASE_URL"] = postgres.socket_url(postgres.APP, passwords["app"], run)
        named["LAMBDAHAT_BROKER_URL"] = valkey.socket_url(passwords["valkey"], run)
    return named | {name: os.environ[name] for name in named if os.environ.get(name)}


def _programs() -> Iterator[Check]:
    from lambdahat.stack.programs import POSTGRES, VALKEY, site_of

    for wheel in (POSTGRES, VALKEY):
        if os.environ.get(wheel.variable):
            yield Check(wheel.name, "ok", f"not needed: {wheel.variable} is set")
            continue
        try:
            yield Check(wheel.name, "ok", str(site_of(wheel) / wheel.program))
        except StackError as error:
            yield Check(wheel.name, "broken", error.detail, error.hint)


def _gpu() -> Check:
    """As torch sees them, in a process of its own: it takes seconds to import, and much memory."""
    there = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    asked = _run([sys.executable, "-c", GPUS], os.environ)
    if asked.returncode:
        words = asked.stderr.strip().splitlines() or ["no words"]
        return Check("torch", "broken", f"can't be imported: {words[-1]}", "pip install 'lambdahat[server]'")
    version, names = json.loads(asked.stdout)
    if there and not names:
        detail = f"torch {version} sees none of {', '.join(there)}"
        return Check("torch", "warning", detail, "install a torch built for CUDA, and a driver that it can use")
    return Check("torch", "ok", f"torch {version}, {', '.join(names) or 'no GPU'}")


def check_data_root(root: Path) -> Iterator[Check]:
    """Whether the folder is ours, private, reachable, and has room. It is not made."""
    if not root.exists():
        yield Check("data root", "warning", f"{root} is not there yet", "lambdahat serve makes it")
        return
    free = shutil.disk_usage(root).free
    detail = f"{root}, {free / 2**30:.1f} GiB free"
    secrets = root / "secrets.json"
    made_by, ours = _versions(root)
    if not os.access(root, os.W_OK | os.X_OK):
        yield Check(
            "data root", "broken", f"{root} can't be written", "choose another with --data, or its owner's user"
        )
    elif secrets.exists() and secrets.stat().st_mode & 0o077:
        yield Check("data root", "broken", f"{secrets} can be read by others", f"chmod 600 {secrets}")
    elif (root / "postgres").exists() and not server_account().reaches(root / "postgres"):
        yield Check("data root", "broken", f"the user `nobody` can't pass through {root}", f"chmod 711 {root}")
    elif made_by and ours and made_by != ours:
        hint = f"lambdahat upgrade --data {root}"
        yield Check("data root", "broken", f"made by PostgreSQL {made_by}; the installed one is {ours}", hint)
    elif free < LITTLE_ROOM:
        yield Check("data root", "warning", detail, "make room, or a larger disk")
    else:
        yield Check("data root", "ok", detail)


def _versions(root: Path) -> tuple[int | None, int | None]:
    """The major versions of PostgreSQL: of who made the data, and of the installed one; None for what is not there."""
    from lambdahat.stack import postgres, programs

    with contextlib.suppress(StackError, OSError):
        home = root / postgres.HOME
        made_by = postgres.version_of(home) if home.exists() else None
        return made_by, postgres.version_of_program(programs.site_of(programs.POSTGRES) / programs.POSTGRES.program)
    return None, None


def _servers(named: Mapping[str, str]) -> Iterator[Check]:
    """What `python -m worker.check` finds: it may know the store, we may not."""
    command = [sys.executable, "-m", "worker.check"]
    environment = {**os.environ, **named, "PYTHONSAFEPATH": "1"}
    asked = _run(command, environment)
    if asked.returncode:
        words = asked.stderr.strip().splitlines() or ["no words"]
        detail = f"python -m worker.check can't look: {words[-1]}"
        yield Check("servers", "broken", detail, "see docs/operations.md for the LAMBDAHAT_* variables")
        return
    for found in json.loads(asked.stdout):
        yield Check(**found)


def _run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {CHECK_SECONDS:g} s")
