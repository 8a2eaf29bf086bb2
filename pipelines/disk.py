"""A disk that refuses: full, read-only, not ours to write, broken. The loop says so once, tries again with patience,
and gives up after a grace. What it did not store it reads again."""

import errno
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path

from contracts.logs import say

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
# Delta and Arrow tell the system's number in words only
_NUMBER = re.compile(r"\((?:os error|errno) (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
# the last room is for ingest, which must not refuse messages because of files that can be made again
RESERVE_BYTES = 32 * 1024 * 1024
LONGEST_PAUSE_S = 30.0
ALARM_S = 60.0


class DiskError(OSError):
    """There is less room than must be left."""


def check_room(folder: Path) -> None:
    """Raise DiskError when a folder's disk is nearly full."""
    if shutil.disk_usage(folder).free < RESERVE_BYTES:
        raise DiskError(errno.ENOSPC, f"less than {RESERVE_BYTES >> 20} MiB of room", str(folder))


def refusal(error: BaseException | None) -> str | None:
    """What the disk says, when that is why something failed; None for any other error."""
    while error is not None:
        if isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _SQLITE:
            return str(error)
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            where = f" ({error.filename})" if error.filename else ""
            return f"{error.strerror}{where}"
        for one, other in _NUMBER.findall(str(error)):
            if int(one or other) in _REFUSALS:
                return os.strerror(int(one or other))
        error = error.__cause__ or error.__context__
    return None


class Patience:
    """How long the disk has refused; `grace_s` is when to give up."""

    def __init__(self, grace_s: float):
        self.grace_s = grace_s
        self.since: float | None = None
        self._pause_s = 0.0
        self._alarm_at = 0.0

    @property
    def is_over(self) -> bool:
        return self.since is not None and time.monotonic() - self.since >= self.grace_s

    def refused(self, words: str) -> float:
        """Say so, now and then; seconds to wait before the next try."""
        now = time.monotonic()
        if self.since is None:
            self.since, self._pause_s, self._alarm_at = now, 0.5, now
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if now >= self._alarm_at:
            lasted_s = round(now - self.since)
            self._alarm_at = now + ALARM_S
            say("pipelines", f"the disk refuses: {words}; trying again", "error", disk_failing_s=lasted_s)
        return self._pause_s

    def went_on(self) -> None:
        """A tick came through."""
        if self.since is not None:
            lasted_s = round(time.monotonic() - self.since, 1)
            say("pipelines", f"the disk takes files again after {lasted_s} s", disk_failing_s=lasted_s)
            self.since = None
