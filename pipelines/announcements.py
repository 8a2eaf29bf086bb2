"""What is announced as final: the table `announcements`, written by whoever owns the positions, read by whoever
recomputes windows."""

from datetime import datetime
from pathlib import Path

import polars as pl

from contracts.schemas import ANNOUNCEMENTS
from pipelines.blocks import blocks_of
from pipelines.lake import open_table, replace_blocks

# per root: the files that were read, which never change, and what they say
_NEWEST: dict[Path, tuple[list[str], dict[str, datetime]]] = {}


def final_through(root: Path) -> dict[str, datetime]:
    """Until when windows are final, by stream; a stream of which nothing is announced is absent."""
    handle = open_table(root, ANNOUNCEMENTS.name)
    files, newest = _NEWEST.get(root, ([], {}))
    if files != handle.file_uris():
        rows = pl.scan_delta(handle).group_by("stream").agg(pl.col("final_through").max()).collect()
        newest = dict(rows.iter_rows())
        _NEWEST[root] = (handle.file_uris(), newest)
    return newest


def announce(root: Path, rows: pl.DataFrame) -> None:
    """Add rows of ANNOUNCEMENTS; those that are there stay as they are."""

    def recompute(existing: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([existing, rows]).unique(ANNOUNCEMENTS.key, keep="first", maintain_order=True)

    replace_blocks(root, ANNOUNCEMENTS, blocks_of(rows, ANNOUNCEMENTS), recompute)
