"""Becomes another program that dies with its parent.

    python -I -S launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARGUMENTS...

A program of its own, rather than `preexec_fn`: code between fork and exec is unsafe in a process that has threads.
Imports nothing of ours, so that it starts in some ten milliseconds. UID -1 keeps the user.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, uid, gid = (int(argument) for argument in sys.argv[1:5])
    command = sys.argv[5:]
    # A shell's background job ignores SIGINT, and what is ignored stays so across exec.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.umask(0o077)
    if sys.platform == "linux":
        # After the change of user, which would clear it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask to be told
        sys.exit(1)
    os.execv(command[0], command)


main()
