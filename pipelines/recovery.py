"""What a crash or a power cut left in the lake is put in order before anybody works on it.

Log entries above the claimed versions may be torn or name files that are gone: those are taken back, and reading again
from the claimed offsets brings their rows back. Minutes whose readings were being replaced are recomputed.
"""

import json
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.layout import Layout, Positions, fsync_folder
from contracts.schemas import TABLES, WINDOWS
from contracts.settings import SettingError
from contracts.times import MINUTE_US
from pipelines import dirty, files, lake
from pipelines.durability import LAST_CHECKPOINT, Torn, actions, claim, log_files
from pipelines.stages import Setup


def settle(setup: Setup, positions: Positions) -> tuple[Positions, list[str]]:
    """The positions that now hold, and what was taken back (table and version). The caller holds the lake's lock.

    Raises SettingError when the lake's windows have another length than the setup's.
    """
    layout = setup.layout
    said = take_back_torn(setup.root, positions.versions)
    _check_windows(setup)
    left = dirty.noted(layout.dirty)
    if left:
        dirty.recompute(setup, left)
        positions = claim(setup.root, positions, positions.offsets, positions.covered_us)
        dirty.forget(layout.dirty)
    return positions, said


def _check_windows(setup: Setup) -> None:
    """Where windows of two lengths met, minutes would count twice in an hour, or not at all."""
    handle = lake.newest_version(setup.root, WINDOWS.name)
    newest = max(files.listed(handle, WINDOWS), key=lambda file: file.high_us, default=None)
    if newest is None:
        return
    found = lake.read_blocks(handle, WINDOWS, {newest.high_us // MINUTE_US}, ["period_s"])["period_s"][0]
    if found != setup.window_s:
        raise SettingError(
            f"LAMPLIGHT_WINDOW_S: the windows in {setup.layout.lake} have {found} s, not {setup.window_s}: give it "
            f"{found}, or remove lake/ and fill it anew"
        )


def take_back_torn(root: Path, claimed: Mapping[str, int]) -> list[str]:
    """Take back log entries above the claimed versions from the first one that is torn; what was taken back, in words.

    Entries above that are whole stay: whether something is new is judged per table when it is read again.
    """
    said = []
    for name in TABLES:
        log = Layout(root).table(name) / "_delta_log"
        if log.is_dir():
            said += [f"{name} {version}" for version in _take_back(log, claimed.get(name, -1))]
    lake.forget()
    return said


def _take_back(log: Path, claimed: int) -> list[int]:
    entries, checkpoints = log_files(log)
    above = sorted(version for version in entries if version > claimed)
    # where nothing is claimed, an old log may begin late, with its checkpoint
    begins = claimed + 1 if claimed >= 0 or not checkpoints else min(above, default=0)
    newest = _newest_whole(log.parent, [(version, entries[version]) for version in above], begins)
    lost = [version for version in above if version > newest]
    bad = [
        version
        for version, paths in checkpoints.items()
        if version > claimed and (version > newest or not all(map(_is_whole, paths)))
    ]
    gone = [path for version in bad for path in checkpoints.pop(version)]
    if not _is_pointing(log / LAST_CHECKPOINT, checkpoints):
        gone.append(log / LAST_CHECKPOINT)
    # the newest first: a crash in between leaves a shorter log, never one with a hole
    gone += [entries[version] for version in reversed(lost)]
    gone += log.glob("_commit_*.json.tmp")  # entries that a killed process has not named
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        fsync_folder(log)
    return lost


def _newest_whole(table: Path, above: Sequence[tuple[int, Path]], begins: int) -> int:
    """The newest version at which every file that came since `begins` is there, or the one before `begins`. Files
    that a later entry removed are not asked for: they may have been vacuumed."""
    newest = begins - 1
    lives: dict[str, tuple[int, int, float]] = {}
    for version, entry in above:
        if version != newest + 1:
            break  # a hole is a lost entry
        try:
            added, removed = actions(entry)
        except Torn:
            break
        newest = version
        lives |= {path: (size, version, inf) for path, size in added.items()}
        lives |= {path: (*lives[path][:2], version) for path in removed if path in lives}
    while newest >= begins:
        files = [(path, *life) for path, life in lives.items() if life[1] <= newest < life[2]]
        missing = [born for path, size, born, _ in files if not _is_whole(table / path, size)]
        if not missing:
            break
        newest = min(missing) - 1
    return newest


def _is_whole(path: Path, size: int | None = None) -> bool:
    """Whether a Parquet file is there with its size and every page can be read."""
    try:
        if size is not None and path.stat().st_size != size:
            return False
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _is_pointing(path: Path, checkpoints: Mapping[int, list[Path]]) -> bool:
    try:
        return json.loads(path.read_bytes())["version"] in checkpoints
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):
        return False
