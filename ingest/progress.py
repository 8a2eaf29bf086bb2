"""How far ingest is, for whoever watches: about once a second."""

import time
from collections import deque
from pathlib import Path
from statistics import median

from contracts.layout import write_progress
from ingest.landing import Landing, NotDurableError

PERIOD_S = 1.0


class Progress:
    """Commit times are those of the last thousand commits, in milliseconds.

    Nothing is written before `begin`, so a young file says that the subscription stands.
    """

    def __init__(self, path: Path):
        self.path = path
        self.commits = 0
        self.due_at = float("inf")
        self._spent_s: deque[float] = deque(maxlen=1000)

    def begin(self) -> None:
        """Write from now on."""
        self.due_at = 0.0

    def committed(self, spent_s: float) -> None:
        """Count a commit that took so many seconds."""
        self.commits += 1
        self._spent_s.append(spent_s)

    def write(self, landing: Landing) -> None:
        """Replace the progress file. Raises NotDurableError when the disk does not take it."""
        self.due_at = time.monotonic() + PERIOD_S
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
            raise NotDurableError(
                f"ingest stopped, {self.path} cannot be written ({error.strerror}): free the disk or change "
                "LAMPLIGHT_DATA, and start it again"
            ) from error
