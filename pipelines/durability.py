"""What `positions.json` claims survives a power cut (law 1 for the tables).

Delta's log is not fsynced by who writes it (measured with strace: not one fsync in a tick). So before the positions
claim versions, the files that came with them are fsynced: log entries, the Parquet files that they add and later ones
do not remove, checkpoints, the folders. `recovery` takes back what a power cut leaves of later versions.
"""

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

from contracts.layout import Layout, Positions, fsync_folder
from pipelines import lake

LAST_CHECKPOINT = "_last_checkpoint"
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
# a journal commits the fsyncs that wait for it together
_AT_ONCE = 8


class Torn(Exception):
    """A log entry or a checkpoint is not whole, or a file that it needs is not there."""


def make_durable(root: Path, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Fsync what tables need to be at `after`, where they are durable at `before` (versions by table)."""
    files: set[Path] = set()
    folders: set[Path] = set()
    for name, version in after.items():
        if version > before.get(name, -1):
            table = Layout(root).table(name)
            files |= _new_files(table, before.get(name, -1), version)
            folders |= {table, table / "_delta_log"}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in (*pool.map(_fsync, files), *pool.map(fsync_folder, folders)):
            pass


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_files(table: Path, since: int, until: int) -> set[Path]:
    log = table / "_delta_log"
    entries, checkpoints = _named(log, since, until) or log_files(log)
    files = {path for version, paths in checkpoints.items() if version > since for path in paths}
    # a power cut may have taken the pointer and left the checkpoint
    if files and (log / LAST_CHECKPOINT).exists():
        files.add(log / LAST_CHECKPOINT)
    data: set[Path] = set()
    for version in sorted(version for version in entries if version > since):
        files.add(entries[version])
        added, removed = actions(entries[version])
        data |= {table / path for path in added}
        data -= {table / path for path in removed}
    return files | data


def _named(log: Path, since: int, until: int) -> tuple[dict[int, Path], dict[int, list[Path]]] | None:
    """What `log_files` finds of the versions behind `since`, by their names: a log holds thousands of entries, of
    which a tick makes one or two. None where the log must be looked through: an entry is not there, or there is a
    checkpoint."""
    entries = {version: log / f"{version:020d}.json" for version in range(since + 1, until + 1)}
    checkpoints = (log / f"{version:020d}.checkpoint.parquet" for version in entries)
    try:
        pointed = json.loads((log / LAST_CHECKPOINT).read_bytes())["version"]
    except FileNotFoundError:
        pointed = -1
    except (ValueError, KeyError, TypeError):
        return None
    if pointed > since or any(path.exists() for path in checkpoints):
        return None
    return (entries, {}) if all(path.exists() for path in entries.values()) else None


def log_files(log: Path) -> tuple[dict[int, Path], dict[int, list[Path]]]:
    """Entries and checkpoints of a log by version."""
    entries: dict[int, Path] = {}
    checkpoints: dict[int, list[Path]] = {}
    for path in log.iterdir():
        if found := _ENTRY.fullmatch(path.name):
            entries[int(found[1])] = path
        elif found := _CHECKPOINT.fullmatch(path.name):
            checkpoints.setdefault(int(found[1]), []).append(path)
    return entries, checkpoints


def actions(entry: Path) -> tuple[dict[str, int], set[str]]:
    """(size in bytes by path of the files that a log entry adds, paths that it removes). Raises Torn."""
    added: dict[str, int] = {}
    removed: set[str] = set()
    metrics: dict[str, int] = {}
    lines = entry.read_bytes().splitlines()
    try:
        found = [json.loads(line) for line in lines]
        for action in found:
            if "add" in action:
                added[unquote(action["add"]["path"])] = action["add"]["size"]
            elif "remove" in action:
                removed.add(unquote(action["remove"]["path"]))
            metrics |= action.get("commitInfo", {}).get("operationMetrics", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Torn(f"{entry.name}: {error}") from error
    # cut at the end of a line it would still parse: Delta takes an empty entry for a version without changes
    counts = {"num_added_files": len(added), "num_removed_files": len(removed)}
    if not found or any(metrics.get(name, count) != count for name, count in counts.items()):
        raise Torn(f"{entry.name}: cut off")
    return added, removed


def claim(root: Path, before: Positions, offsets: dict[str, int], covered_us: int) -> Positions:
    """Make the tables durable as they stand, and then say in positions.json what they contain."""
    versions = lake.versions(root)
    lake.checkpoint(root, before.versions, versions)
    make_durable(root, before.versions, versions)
    positions = Positions(offsets=offsets, versions=versions, covered_us=covered_us)
    positions.store(Layout(root).positions)
    return positions
