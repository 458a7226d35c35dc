"""One embedded Valkey, the broker: in memory only (a message is a hint), reached by a Unix socket and a password."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from lambdahat.stack.folder import DataFolder
from lambdahat.stack.process import Child, Program
from lambdahat.stack.programs import VALKEY, find_program

START_SECONDS = 20.0
SOCKET = "valkey.sock"


def socket_url(password: str, run: Path) -> str:
    """The URL, in kombu's spelling, of the broker with its socket in a folder."""
    return f"redis+socket://:{quote(password)}@{quote(str(run / SOCKET))}?virtual_host=0"


class Valkey:
    """The broker of a data root. `child` runs it; `url`, in kombu's spelling, reaches it."""

    def __init__(self, folder: DataFolder) -> None:
        socket = folder.run / SOCKET
        self._socket = socket
        self._password = folder.passwords["valkey"]
        self.url = socket_url(self._password, folder.run)
        configuration = [
            "port 0",
            f'unixsocket "{socket}"',
            "unixsocketperm 700",
            f"requirepass {self._password}",
            'save ""',
            "appendonly no",
            f'dir "{folder.run}"',
            "maxmemory-policy noeviction",
        ]
        self.child = Child(
            Program(
                name="valkey",
                command=[find_program(VALKEY, folder), "-"],
                log=folder.logs / "valkey.log",
                environment={"PATH": os.defpath, "LC_ALL": "C"},
                account=folder.account,
                stdin="\n".join(configuration) + "\n",
                before=lambda: socket.unlink(missing_ok=True),
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started and ready; stopped at the end."""
        with self.child.running():
            self.wait()
            yield

    def wait(self) -> None:
        """Wait until it answers."""
        self.child.wait_until(self._answers, START_SECONDS)

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            with redis.Redis(unix_socket_path=str(self._socket), password=self._password, socket_timeout=2) as client:
                client.ping()
        except redis.ConnectionError:
            return False
        return True
