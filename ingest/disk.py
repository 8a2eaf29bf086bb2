"""A disk that refuses commits: nothing is acknowledged, everybody is told, and it goes on by itself when there is room.

Meanwhile there is no connection: the broker's session keeps what was not acknowledged, as it does for one that is
away, and memory holds nothing. (A connection that is kept and not read from would end by its keep-alive anyway.)
"""

import time

from contracts.logs import say
from ingest.journal import Journal
from ingest.landing import Landing, NotDurableError

RETRY_S = 1.0
ALARM_S = 30.0


class Disk:
    """`failing_since` (time.monotonic) is None while the disk takes commits; `grace_s` how long it may refuse."""

    def __init__(self, landing: Landing, journal: Journal, grace_s: float):
        self.failing_since: float | None = None
        self._landing = landing
        self._journal = journal
        self._grace_s = grace_s
        self._alarm_at = 0.0

    @property
    def is_given_up(self) -> bool:
        """It has refused for longer than the grace."""
        return self.failing_since is not None and time.monotonic() - self.failing_since >= self._grace_s

    def failed(self, error: NotDurableError) -> None:
        """A commit was refused."""
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
            self._alarm(now, str(error))
            self._journal.note("disk_failed", str(error))

    def try_again(self) -> bool:
        """Whether the disk takes commits again."""
        if self.failing_since is None:
            return True
        now = time.monotonic()
        lasted_s = now - self.failing_since
        try:
            self._landing.repair()
        except NotDurableError as error:
            if now >= self._alarm_at:
                self._alarm(now, f"{error}; since {lasted_s:.0f} s")
            return False
        self.failing_since = None
        self._journal.write()
        detail = f"commits go on at offset {self._landing.next_offset} after {lasted_s:.1f} s"
        self._journal.note("disk_back", detail)
        say("ingest", f"the disk is back, {detail}", disk_failing_s=round(lasted_s, 1))
        return True

    def _alarm(self, now: float, words: str) -> None:
        self._alarm_at = now + ALARM_S
        say("ingest", f"nothing is acknowledged: {words}", "error", offset=self._landing.next_offset)
