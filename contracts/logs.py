"""What a stage says on standard error: a line for people, or with LAMPLIGHT_LOG=json one JSON object for machines.

No payload is ever logged.
"""

import contextlib
import json
import os
import sys
from datetime import UTC, datetime
from typing import Literal

Level = Literal["info", "warning", "error"]


def is_json() -> bool:
    """Whether JSON lines are wanted (LAMPLIGHT_LOG=json)."""
    return os.environ.get("LAMPLIGHT_LOG", "").lower() == "json"


def say(stage: str, message: str, level: Level = "info", **figures: int | float | str | None) -> None:
    """One line of a stage; `figures` are fields of their own in JSON and are left out for people, to whom the message
    says them."""
    if is_json():
        head = {"time": datetime.now(UTC).isoformat(), "level": level, "stage": stage, "message": message}
        line = json.dumps(head | figures, ensure_ascii=False)
    else:
        line = f"lamplight: {stage}: {message}"
    # a log on a disk that is full must not end a stage that waits for room
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
