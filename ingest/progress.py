"""How far ingest is, for whoever watches: about once a second."""

import time
from collections import deque
from pathlib import Path
from statistics import median

from contracts.layout import write_progress
from contracts.logs import say
from ingest.landing import Landing

PERIOD_S = 1.0
ALARM_S = 30.0


class Progress:
    """Commit times are those of the last thousand commits, in milliseconds.

    Nothing is written before `begin`, so a young file says that the subscription stands.
    """

    def __init__(self, path: Path):
        self.path = path
        self.commits = 0
        self.due_at = float("inf")
        self._spent_s: deque[float] = deque(maxlen=1000)
        self._alarm_at = 0.0

    def begin(self) -> None:
        """Write from now on."""
        self.due_at = 0.0

    def committed(self, spent_s: float) -> None:
        """Count a commit that took so many seconds."""
        self.commits += 1
        self._spent_s.append(spent_s)

    def write(self, landing: Landing) -> None:
        """Replace the progress file. A disk that does not take it is told of, and stops nothing: what is acknowledged
        lies elsewhere, and is asked for by each commit."""
        now = time.monotonic()
        self.due_at = now + PERIOD_S
        figures: dict[str, int | float | str | None] = {
            "durable": landing.durable,
            "offset": landing.next_offset,
            "commits": self.commits,
            "commit_p50_ms": round(1000 * median(self._spent_s), 3) if self._spent_s else None,
            "commit_max_ms": round(1000 * max(self._spent_s), 3) if self._spent_s else None,
            "time_us": time.time_ns() // 1000,
        }
        try:
            write_progress(self.path, figures)
        except OSError as error:
            if now >= self._alarm_at:
                self._alarm_at = now + ALARM_S
                say("ingest", f"{self.path} cannot be written ({error.strerror}): free the disk", "error")
