"""What is announced as final: the table `announcements`, written by whoever owns the positions, read by whoever
recomputes windows."""

from datetime import datetime
from pathlib import Path

import polars as pl

from contracts.schemas import ANNOUNCEMENTS
from pipelines import files
from pipelines.blocks import blocks_of
from pipelines.files import File
from pipelines.lake import newest_version, replace_blocks

# per root: the files that were read, which never change, and what they say
_NEWEST: dict[Path, tuple[list[File], dict[str, datetime]]] = {}


def final_through(root: Path) -> dict[str, datetime]:
    """Until when windows are final, by stream; a stream of which nothing is announced is absent."""
    pinned = newest_version(root, ANNOUNCEMENTS.name)
    listed = files.listed(pinned, ANNOUNCEMENTS)
    known, newest = _NEWEST.get(root, ([], {}))
    if known != listed:
        paths = [pinned.folder / file.name for file in listed]
        rows = pl.scan_parquet(paths).group_by("stream").agg(pl.col("final_through").max()).collect() if paths else None
        newest = {} if rows is None else dict(rows.iter_rows())
        _NEWEST[root] = (listed, newest)
    return newest


def announce(root: Path, rows: pl.DataFrame) -> None:
    """Add rows of ANNOUNCEMENTS; those that are there stay as they are."""

    def recompute(existing: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([existing, rows]).unique(ANNOUNCEMENTS.key, keep="first", maintain_order=True)

    replace_blocks(root, ANNOUNCEMENTS, blocks_of(rows, ANNOUNCEMENTS), recompute)
