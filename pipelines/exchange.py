"""Files of a table exchanged for others in one commit of our own, as compaction and retention need it.

Delta's replacement by a predicate deals batches out to as many partitions as there are cores, so files that it writes
are not sorted; it looks for the rows that match even where whole files go; and a day must fit into its memory. Its
append keeps the order of a stream. So the new files are appended to a table aside, moved, and one log entry of our
own removes the old files and adds the new ones. It changes no row (`dataChange` false), and whoever works on an old
file meanwhile is refused, or refuses this entry.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from contracts.layout import Layout, make_folder
from contracts.schemas import Table
from pipelines.commit import Change, Conflict, commit
from pipelines.files import File, entry, listed
from pipelines.lake import HOOKS, newest_version
from pipelines.parquet import small

ASIDE = ".aside"  # in the lake: what a killed process leaves there goes with the next exchange


def exchange(root: Path, table: Table, old: Sequence[File], runs: Iterable[Iterator[pa.RecordBatch]]) -> None:
    """Put runs of rows, each in its order and a file of its own, in place of files. Raises Conflict when another has
    changed one of them meanwhile; then nothing has happened."""
    pinned, aside = newest_version(root, table.name), Layout(root).lake / ASIDE / table.name
    if missing := {file.name for file in old} - {file.name for file in listed(pinned, table)}:
        raise Conflict(f"{table.name}: {', '.join(sorted(missing))} has been replaced")
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)
    try:
        made = DeltaTable.create(str(aside), schema=table.schema, post_commithook_properties=HOOKS)
        added = [action for rows in runs for action in _write(made, aside / "_delta_log", table, rows)]
        for action in added:
            (aside / unquote(action["path"])).rename(pinned.folder / unquote(action["path"]))
        removed = {file.name: file.size for file in old}
        commit(pinned, Change(operation="OPTIMIZE", removed=removed, added=added))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(made: DeltaTable, log: Path, table: Table, rows: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Append rows to the table aside; their file, as a log entry adds it."""
    first = next(rows, None)
    if first is None:
        return []
    stream = pa.RecordBatchReader.from_batches(table.schema, chain([first], rows))
    write_deltalake(
        made,
        stream,
        mode="append",
        target_file_size=2**40,
        writer_properties=small(table),
        post_commithook_properties=HOOKS,
    )
    lines = entry(log, made.version()).read_bytes().splitlines()
    found = [json.loads(line) for line in lines]
    return [action["add"] for action in found if "add" in action]
