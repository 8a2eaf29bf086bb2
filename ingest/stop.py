"""The wish to stop, as something that `select` can wait for."""

import contextlib
import select
import signal
import socket
from typing import Any


class Stop:
    """Set once, by SIGTERM or SIGINT after `on_signals`, or by `set`; readable to `select` from then on."""

    def __init__(self) -> None:
        self.is_set = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def on_signals(self) -> "Stop":
        """Stop cleanly on SIGTERM and SIGINT. Only the main thread may ask for this."""
        signal.signal(signal.SIGTERM, self.set)
        signal.signal(signal.SIGINT, self.set)
        return self

    def set(self, *_: Any) -> None:
        """Wake whoever waits."""
        self.is_set = True
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")

    def wait(self, seconds: float) -> bool:
        """Sleep until set or until so many seconds have passed; whether it is set."""
        select.select([self], [], [], max(0.0, seconds))
        return self.is_set

    def fileno(self) -> int:
        """For `select`."""
        return self._reader.fileno()
