"""The user the servers run as: PostgreSQL refuses to run as root, so root's servers run as `nobody`."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lambdahat.stack.errors import StackError


@dataclass(frozen=True)
class Account:
    """The user and group of the servers; `switch` says whether they differ from ours."""

    uid: int
    gid: int
    switch: bool

    def give(self, path: Path) -> None:
        """Make `path` (not what is in it) the account's."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether the account can read `path`: asked of the kernel, which knows about access lists too."""
        if not self.switch:
            return os.access(path, os.R_OK)
        question = subprocess.run(
            ["/usr/bin/test", "-r", path], user=self.uid, group=self.gid, extra_groups=[], cwd="/", check=False
        )
        return question.returncode == 0


def server_account() -> Account:
    """`nobody` for root, ourselves for everyone else."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it as.",
            "Run lambdahat as an ordinary user.",
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid, switch=True)
