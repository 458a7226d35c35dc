"""`lambdahat serve`: the stack in the foreground, until Ctrl-C."""

import signal
import sys
from pathlib import Path
from types import FrameType

from lambdahat.stack.errors import StackError
from lambdahat.stack.supervisor import Stack, cores

MOST_APIS = 4


def serve(data: Path | None, host: str, port: int, workers: int | None = None, apis: int | None = None) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP (a second one ends it at once); the exit code.

    workers, apis: processes that compute, and that answer requests; by default one for each core (of these at most 4).
    """
    stack = Stack(
        data,
        host,
        port,
        workers,
        apis or min(cores(), MOST_APIS),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )

    def end(_number: int, _frame: FrameType | None) -> None:
        if stack.stopping:
            stack.kill()
        else:
            print("\nstopping (again to kill)", file=sys.stderr, flush=True)
            stack.request_stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        print(f"starting, data in {stack.root}", flush=True)
        stack.start()
        if not stack.stopping:
            print(_greeting(stack), flush=True)
        stack.wait()
    except StackError as error:
        print(f"lambdahat serve: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _greeting(stack: Stack) -> str:
    key = [f"API key    {stack.key}", f"           kept in {stack.key_path}"]
    return "\n".join(
        [
            f"ready at   {stack.url}",
            *(key if stack.key_is_new else [f"API key    in {stack.key_path}"]),
            f"dashboard  {stack.url}/#key={stack.key}",
            "Ctrl-C stops it",
        ]
    )
