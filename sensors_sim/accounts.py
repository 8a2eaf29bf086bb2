"""Lines that outlive a run: the ground truth of the faults, and what receipts covered."""

import json
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from contracts.settings import SettingError
from sensors_sim.devices import Message


class Lines:
    """An NDJSON file that goes on where the last run ended; a torn last line of a killed one is cut."""

    def __init__(self, path: Path, option: str):
        self._path, self._option = path, option
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            self._file = path.open("ab", buffering=0)
            if content and not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)
        except OSError as error:
            raise SettingError(f"{option} {path} cannot be written: {error.strerror}") from error

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records and hand them to the system, so that a killed fleet leaves them. Raises SettingError."""
        content = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise SettingError(f"{self._option} {self._path} cannot be written: {error.strerror}") from error


def dropped(fault: str, message: Message) -> dict[str, Any]:
    """The truth about a message that its post gave up without a receipt (`overflow`, `given_up`). What the broker has
    acknowledged may have landed all the same."""
    return {
        "fault": fault,
        "post_id": message.post_id,
        "stream": message.stream,
        "boot_id": message.boot_id,
        "seq": message.seq,
        "topic": message.topic,
        "sends": message.sends,
        "was_acknowledged": message.is_acknowledged,
    }


def receipted(
    post_id: str, boot_id: str, stream: str, covered: list[Message], time_us: int, now_s: float
) -> list[dict[str, Any]]:
    """One record per run of seqs without a gap: `latency_ms` from each message's first sending to its receipt, those of
    an earlier run left out."""
    breaks = [at for at, (a, b) in enumerate(pairwise(covered), 1) if b.seq != a.seq + 1]
    return [
        {
            "post_id": post_id,
            "boot_id": boot_id,
            "stream": stream,
            "first_seq": covered[first].seq,
            "last_seq": covered[end - 1].seq,
            "time_us": time_us,
            "latency_ms": [round((now_s - m.first_sent_s) * 1000) for m in covered[first:end] if m.first_sent_s],
        }
        for first, end in pairwise([0, *breaks, len(covered)])
    ]
