"""What befalls this instance, kept until the disk has taken it."""

from datetime import UTC, datetime
from pathlib import Path

from contracts.events import Event, EventKind, append_event, read_events


class Journal:
    """The events file of one instance.

    `has_session`: by what is written here, the broker should know a session of ours. `limits` is what the last
    `limited` says, "" when there is none.
    """

    def __init__(self, path: Path):
        self._path = path
        self._waiting: list[Event] = []
        self.has_session = False
        self.limits = ""
        for event in read_events(path):
            self._take(event)

    def note(self, kind: EventKind, detail: str) -> None:
        """Write an event of this moment, at once or when the disk takes it again."""
        event = Event(time=datetime.now(UTC), kind=kind, detail=detail)
        self._take(event)
        self._waiting.append(event)
        self.write()

    def write(self) -> None:
        """Write what waits, as far as the disk takes it."""
        while self._waiting:
            try:
                append_event(self._path, self._waiting[0])
            except OSError:
                return
            self._waiting.pop(0)

    def _take(self, event: Event) -> None:
        if event.kind in ("joined", "session_lost", "retired"):
            self.has_session = event.kind != "retired"
        elif event.kind == "limited":
            self.limits = event.detail
