"""`python -m pipelines.tether PARENT COMMAND...`: become a command that is killed when its parent (a process id) dies,
so that a killed supervisor leaves nothing behind. On Linux; elsewhere the command just runs."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Does not return."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(argv[0]):
            os._exit(1)  # it died before
    os.execv(argv[1], argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
