"""Files of the broker's folder."""

import os
from pathlib import Path

from contracts.layout import write_durably

PRIVATE = 0o600
PUBLIC = 0o644


def store(path: Path, content: bytes, mode: int) -> None:
    """Replace a file durably. What root stores belongs to whom the folder belongs: the broker must read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.parent.stat()
    write_durably(path, content, mode, (place.st_uid, place.st_gid) if os.geteuid() == 0 else None)
