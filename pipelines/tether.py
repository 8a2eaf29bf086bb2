"""`python -m pipelines.tether PARENT COMMAND...`: become a command that is killed when its parent (a process id) dies,
so that a killed supervisor leaves nothing behind. On Linux; elsewhere the command just runs."""

import ctypes
import os
import signal
import sys
from multiprocessing.process import BaseProcess

_PR_SET_PDEATHSIG = 1


def bind(parent: int) -> None:
    """Be killed when a parent dies, or rather the thread of it that began this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before


def how_ended(process: BaseProcess) -> str:
    """What befell a process that has closed its end: was killed by SIGKILL."""
    process.join()
    code = process.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def main(argv: list[str]) -> None:
    """Does not return."""
    bind(int(argv[0]))
    os.execv(argv[1], argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
