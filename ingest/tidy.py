"""`python -m ingest tidy`: old segments are merged, and those past their retention removed. Also done by itself, within
the receipts process."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from contracts import settings
from contracts.layout import instances, try_lock
from contracts.logs import say
from contracts.settings import SettingError
from ingest import merge, retention
from ingest.config import Config
from ingest.merge import UnlikeError
from ingest.retention import DAY_US, Expired

PERIOD_S = 600.0
PATIENCE_S = 5.0
NICE = 10


class Tidied:
    """What one round did (or would do): `merged` segments became part of others, `removed` went."""

    def __init__(self) -> None:
        self.merged = 0
        self.removed = 0


def tidy(config: Config, is_dry: bool, tell: Callable[[str], None], stop: Callable[[float], bool]) -> Tidied:
    """One round. `tell` gets a line for each thing done, `stop` waits so many seconds and says whether to leave off.

    Raises SettingError when another process tidies; a file that is not as it should be ends an instance's part of the
    round with a line.
    """
    done = Tidied()
    lock = None if is_dry else try_lock(config.layout.receipts / "tidy")
    if lock is None and not is_dry:
        raise SettingError(f"another process tidies {config.layout.raw}: wait for it")
    try:
        for chore in (_merge, _retain):
            for instance in instances(config.layout.raw):
                try:
                    for line in chore(config, instance, is_dry, done, stop):
                        tell(line)
                        if stop(0.0):
                            return done
                except (UnlikeError, OSError) as error:
                    say("tidy", f"{instance}: {error}", "error")
    finally:
        if lock is not None:
            lock.close()
    return done


def _merge(config: Config, instance: str, is_dry: bool, done: Tidied, stop: Callable[[float], bool]) -> Iterator[str]:
    raw = config.layout.raw
    is_merged = False
    for each in merge.merge_shards(raw, instance, time.time(), is_dry):
        is_merged = True
        rows = each.segment.last - each.segment.first + 1
        what = f"{each.parts} segments, {rows:,} rows, {megabytes(each.bytes_before)}"
        if each.bytes_after is None:
            yield f"would merge {what} into {each.segment.relative}"
        else:
            done.merged += each.parts
            yield f"merged {what} into {each.segment.relative}, {megabytes(each.bytes_after)}"
    if not is_dry and not (is_merged and stop(merge.LISTED_S)):
        merge.remove_parts(raw, instance)


def _retain(config: Config, instance: str, is_dry: bool, done: Tidied, stop: Callable[[float], bool]) -> Iterator[str]:
    layout = config.layout
    before_us = time.time_ns() // 1000 - round(config.retention_days * DAY_US)
    found = list(retention.expired(layout, instance, retention.passed(layout).get(instance, 0), before_us))
    if not is_dry:
        retention.remove(layout.raw, [each.segment for each in found])
        done.removed += len(found)
    days: dict[str, list[Expired]] = {}
    for each in found:
        days.setdefault(each.day, []).append(each)
    for day, gone in days.items():
        rows, size = sum(each.rows for each in gone), sum(each.size for each in gone)
        verb = "would remove" if is_dry else "removed"
        yield f"{verb} {len(gone)} files, {rows:,} rows, {megabytes(size)} of {instance}, received until {day}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def run(config: Config, is_dry: bool) -> int:
    """The command: what is done is told on standard output; the exit code."""
    began = time.monotonic()
    if not is_dry:
        settings.writable_folder(config.layout.receipts)

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        print(line, flush=True)

    tidy(config, is_dry, tell, wait)
    if not told:
        print("nothing to merge, nothing to remove", flush=True)
    say("tidy", f"done in {time.monotonic() - began:.1f} s")
    return 0


class Tidier:
    """Tidies each PERIOD_S in a thread that gives way to everything else. `on_round` is told what was done."""

    def __init__(self, config: Config, on_round: Callable[[Tidied], None]):
        self._config = config
        self._on_round = on_round
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="tidy")
        self._thread.start()

    def close(self) -> None:
        """Leave off soon; a round that is cut off does no harm."""
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.wait(PERIOD_S):
            try:
                self._on_round(tidy(self._config, False, lambda line: say("tidy", line), self._stop.wait))
            except (SettingError, OSError) as error:
                say("tidy", str(error), "warning")
