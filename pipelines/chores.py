"""Housekeeping beside the live loop, in a thread that gives way to it: a day of readings takes many seconds to compact,
and ticks go on meanwhile. A Delta handle belongs to a thread, and Delta says who was second."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from contracts.logs import say
from pipelines import tidy
from pipelines.pins import LinkError

TIDY_S = 60  # between the starts of two rounds
NICE = 10
PATIENCE_S = 10.0


class Chores:
    """Rounds of housekeeping on a lake whose lock this process holds. `on_round` is told the seconds of each."""

    def __init__(self, root: Path, rules: tidy.Rules, on_round: Callable[[float], None]):
        self._root, self._rules, self._on_round = root, rules, on_round
        self._due_at = time.monotonic() + TIDY_S
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._said = ""

    @property
    def is_due(self) -> bool:
        """Whether a round is to begin. Raises what ended the last one."""
        if self._thread is not None and self._thread.is_alive():
            return False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return time.monotonic() >= self._due_at

    def begin(self) -> None:
        """Begin a round. The positions have just been stored: what vacuum removes must be missed by nobody, neither by
        a catalogue nor after a power cut."""
        self._due_at = time.monotonic() + TIDY_S
        self._thread = threading.Thread(target=self._run, daemon=True, name="chores")
        self._thread.start()

    def close(self) -> None:
        """Leave off after the piece that is being done; one that is cut off does no harm."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        began = time.monotonic()
        try:
            pieces = tidy.plan(self._root, self._rules, time.time_ns() // 1000)
            for piece in tidy.carry_out(self._root, pieces):
                if piece.kind == "remove":
                    say("pipelines", f"housekeeping {piece.line}")
                if self._stop.is_set():
                    break
        except LinkError as error:
            if str(error) != self._said:
                self._said = str(error)
                say("pipelines", self._said, "warning")
        except Exception as error:  # noqa: BLE001
            self._failure = error
        self._on_round(time.monotonic() - began)
