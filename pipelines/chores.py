"""Housekeeping beside the live loop, in a process that gives way to it: a day of readings takes many seconds to
compact, and ticks go on meanwhile. A thread would not do: its sorting shares Polars' threads with the ticks, which do
not give way to each other, and Python's lock."""

import errno
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from contracts.logs import say
from pipelines import disk, lake, tether, tidy
from pipelines.pins import LinkError

TIDY_S = 60  # between the starts of two rounds
NICE = 10
PATIENCE_S = 10.0


class ChoresError(Exception):
    """A round failed, and not for the disk; the message is the traceback of its process."""


class Chores:
    """Rounds of housekeeping on a lake whose lock this process holds. `on_round` is told the seconds of each."""

    def __init__(self, root: Path, rules: tidy.Rules, on_round: Callable[[float], None]):
        self._root, self._rules, self._on_round = root, rules, on_round
        self._due_at = time.monotonic() + TIDY_S
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._is_busy = False

    @property
    def pid(self) -> int | None:
        """The process that does them, from the first round on."""
        return self._process.pid if self._process is not None else None

    @property
    def is_due(self) -> bool:
        """Whether a round is to begin. Raises DiskError or ChoresError for what ended the last one."""
        if self._is_busy and not self._has_ended():
            return False
        return time.monotonic() >= self._due_at

    def begin(self) -> None:
        """Begin a round. The positions have just been stored: what vacuum removes must be missed by nobody, neither by
        a catalogue nor after a power cut."""
        self._due_at = time.monotonic() + TIDY_S
        if self._process is None:
            context = get_context("spawn")
            self._pipe, theirs = context.Pipe()
            arguments = theirs, self._root, self._rules, os.getpid()
            self._process = context.Process(target=_work, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
        assert self._pipe is not None
        try:
            self._pipe.send(None)
            self._is_busy = True
        except OSError:
            self._end()

    def close(self) -> None:
        """Leave off after the piece that is being done; one that is cut off does no harm."""
        if self._pipe is not None and self._process is not None:
            self._pipe.close()
            self._process.join(PATIENCE_S)
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None

    def _has_ended(self) -> bool:
        assert self._pipe is not None
        if not self._pipe.poll():
            return False
        self._is_busy = False
        try:
            spent_s, refusal, failure = self._pipe.recv()
        except (EOFError, OSError):
            self._end()
            return True
        self._on_round(spent_s)
        if refusal is not None:
            raise disk.DiskError(errno.EIO, refusal)
        if failure is not None:
            raise ChoresError(failure)
        return True

    def _end(self) -> None:
        """The process is gone: one that takes too much memory, mostly. The next round begins another."""
        assert self._process is not None
        say(
            "pipelines",
            f"housekeeping {tether.how_ended(self._process)}; what it left is done in the next round",
            "warning",
        )
        self.close()


def _work(pipe: "Connection[Any, Any]", root: Path, rules: tidy.Rules, parent: int) -> None:
    """What the process does until nobody is at the other end."""
    tether.bind(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed for the loop ends a round in peace
    os.nice(NICE)
    said = ""
    while True:
        try:
            pipe.recv()
            began, refusal, failure = time.monotonic(), None, None
            try:
                work(root, rules, pipe.poll)
            except LinkError as error:
                if str(error) != said:
                    said = str(error)
                    say("pipelines", said, "warning")
            except Exception as error:  # noqa: BLE001
                refusal, failure = disk.refusal(error), traceback.format_exc()
            lake.forget()  # what a round has read is mostly of no use to the next
            pipe.send((time.monotonic() - began, refusal, failure))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def work(root: Path, rules: tidy.Rules, is_stopped: Callable[[], bool]) -> None:
    """A round, or its beginning when it is stopped. Raises LinkError after all others are done."""
    pieces = tidy.plan(root, rules, time.time_ns() // 1000)
    for piece in tidy.carry_out(root, pieces):
        if piece.kind == "remove":
            say("pipelines", f"housekeeping {piece.line}")
        if is_stopped():
            break
