"""Minutes whose readings are being replaced, in lake/dirty.json: whoever works on the lake next recomputes them, so
that work which stopped between the readings and the minutes leaves no trace."""

import json
from collections.abc import Mapping
from pathlib import Path

from contracts.layout import fsync_folder, write_durably
from pipelines.stages import Setup, make_minutes, roll_up


def note(path: Path, dirty: Mapping[str, set[int]]) -> None:
    """Say durably which blocks of which minutes tables are about to be dirty, besides those that are."""
    known = noted(path)
    together = {name: sorted(known.get(name, set()) | dirty.get(name, set())) for name in {*known, *dirty}}
    write_durably(path, json.dumps(together).encode())


def noted(path: Path) -> dict[str, set[int]]:
    """Blocks by minutes table; empty when nothing was interrupted."""
    try:
        content: dict[str, list[int]] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {name: set(blocks) for name, blocks in content.items()}


def forget(path: Path) -> None:
    """Call when what was recomputed is durable."""
    if path.exists():
        path.unlink()
        fsync_folder(path.parent)


def recompute(setup: Setup, dirty: Mapping[str, set[int]]) -> None:
    """Minutes, windows and hours of dirty blocks, by minutes table."""
    for name in sorted(dirty):
        roll_up(setup, name, make_minutes(setup, name, dirty[name]))
