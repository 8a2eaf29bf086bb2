"""Worker processes of one command: each runs the Beam graph over the shares of the raw log that it is handed.

They hold the lake's lock together with whoever started them: should that one be killed, they end their share, find that
nobody is there, and only then may somebody else work on the lake.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import IO, Any

import pyarrow as pa

from contracts.layout import Segment
from contracts.segments import read_segment
from pipelines import disk, files, lake, tether
from pipelines.log import chunks
from pipelines.stages import Setup

Share = tuple[Segment, ...]
LOOK_S = 0.5
KEPT_BYTES = 32 << 20  # a worker goes forward and reads little twice
# each of these libraries would take all cores in every process
_THREADS = ("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS", "OMP_NUM_THREADS")


class WorkerError(Exception):
    """A worker failed or was killed; the message says which and why."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    share: Share | None = None


def quiet_beam() -> None:
    """Call before Beam is imported. It warns then about cloud clients that nothing here uses; what a stage raises is
    said once, by us."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Processes:
    """So many workers. Leaving the context waits until each has ended its share."""

    def __init__(self, count: int, setup: Setup, lock: IO[Any]):
        context = get_context("spawn")
        threads = str(max(1, cores() // count))
        before = dict(os.environ)
        os.environ.update({name: os.environ.get(name, threads) for name in _THREADS})
        # what crosses to a new process by its descriptor is a connection; one to the lock file holds the lock
        held: Connection[Any, Any] = Connection(os.dup(lock.fileno()))
        self._workers: list[_Worker] = []
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, setup, held))
                process.start()
                theirs.close()
                self._workers.append(_Worker(process, ours))
        finally:
            held.close()
            os.environ.clear()
            os.environ.update(before)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid or 0 for worker in self._workers]

    def run(
        self, lanes: Sequence[Sequence[Share]], is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Share, Mapping[str, int]] | None]:
        """Each share with what it met (names of `counts`) when it is done, in any order; None now and then meanwhile.

        Each worker goes through a lane of its own and then helps with the end of the longest, so that two of them
        rarely meet in the same blocks. Ends early when stopped, with no share begun that is not done. Raises
        WorkerError.
        """
        left = [deque(lane) for lane in lanes]
        while True:
            for number, worker in enumerate(self._workers):
                if worker.share is None and any(left) and not is_stopped():
                    own = left[number % len(left)]
                    worker.share = own.popleft() if own else max(left, key=len).pop()
                    self._send(worker)
            busy = [worker for worker in self._workers if worker.share is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy], timeout=LOOK_S)
            if not ready:
                yield None
            for worker in busy:
                if worker.pipe in ready:
                    share, worker.share = worker.share, None
                    assert share is not None
                    yield share, self._answer(worker, share)

    def _send(self, worker: _Worker) -> None:
        try:
            worker.pipe.send(worker.share)
        except OSError:
            raise self._end_of(worker, worker.share) from None

    def _answer(self, worker: _Worker, share: Share) -> Mapping[str, int]:
        try:
            answer: Mapping[str, int] | str = worker.pipe.recv()
        except (EOFError, OSError):
            raise self._end_of(worker, share) from None
        if isinstance(answer, str):
            raise WorkerError(f"{answer} (at {_named(share)})")
        return answer

    def _end_of(self, worker: _Worker, share: Share | None) -> WorkerError:
        return WorkerError(f"worker {worker.process.pid} {tether.how_ended(worker.process)} at {_named(share or ())}")


def _named(share: Share) -> str:
    return f"{share[0].relative} to {share[-1].relative}" if share else "its start"


def _work(pipe: "Connection[Any, Any]", setup: Setup, lock: "Connection[Any, Any]") -> None:
    """What a worker does until nobody is at the other end. `lock` is held open."""
    # a key pressed for whoever started it ends a share in peace
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    quiet_beam()
    files.KEPT_BYTES = KEPT_BYTES
    with lock:
        while True:
            try:
                pipe.send(_answer(setup, pipe.recv()))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return


def _answer(setup: Setup, share: Share) -> Mapping[str, int] | str:
    from pipelines import graph

    # a new handle is faster than one that has followed all the others' commits
    lake.forget()
    try:
        return graph.run(setup, chunks(list(share)))
    except Exception as error:  # noqa: BLE001 (said by whoever handed it out)
        left = tuple(segment for segment in share if _is_there(setup, segment))
        if len(left) < len(share):
            return _answer(setup, left)  # retention has removed what lies below everybody's positions
        return disk.refusal(error) or f"{type(error).__name__}: {error}".splitlines()[0]


def _is_there(setup: Setup, segment: Segment) -> bool:
    try:
        read_segment(setup.layout.raw, segment)
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowException):
        return True
    return True
