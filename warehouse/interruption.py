"""A query ends after its time, and at Ctrl-C."""

import select
import signal
import socket
import threading
import time
from enum import Enum
from types import TracebackType

import duckdb

_AGAIN_S = 0.05
_DONE = b"\0"


class Why(Enum):
    """Why a query was ended."""

    LATE = "it took too long"
    PRESSED = "Ctrl-C"


class Watched:
    """While a query runs on a connection, a thread interrupts it after `seconds` and at Ctrl-C; `why` says so then.

    DuckDB looks for signals itself, but not always (2.0: one count over a range in four ran on). So Python's signal
    handler does nothing meanwhile, and the thread learns of the signal from the descriptor that C writes to at once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, seconds: float):
        self.connection, self.seconds = connection, seconds
        self.why: Why | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watched":
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._has_signals = threading.current_thread() is threading.main_thread()
        if self._has_signals:
            self._fd_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
            self._handler_before = signal.signal(signal.SIGINT, lambda *_: None)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._mouth.send(_DONE)
        self._thread.join()
        if self._has_signals:
            signal.set_wakeup_fd(self._fd_before)
            signal.signal(signal.SIGINT, self._handler_before)
        self._ear.close()
        self._mouth.close()
        if self.why is Why.PRESSED:
            raise KeyboardInterrupt from error

    def _watch(self) -> None:
        end = time.monotonic() + self.seconds
        while True:
            # again and again, because between two steps of a query nobody listens
            left = _AGAIN_S if self.why else max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self._ear], [], [], left)
            heard = self._ear.recv(64) if ready else b""
            if _DONE in heard:
                return
            if bytes([signal.SIGINT]) in heard:
                self.why = Why.PRESSED
            elif not ready:
                self.why = self.why or Why.LATE
            if self.why:
                self.connection.interrupt()
