"""Pins: earlier lakes that stay for time travel, in lake/pins.

A pin is a folder named by its covered moment, with hard links to the files of the versions that positions.json claimed,
and that file. So neither vacuum nor the clean-up of logs can hurt it, and it costs what has been replaced since.
"""

import errno
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contracts.layout import Layout, Positions, fsync_folder, make_folder
from contracts.times import from_us
from pipelines.files import names_of
from pipelines.piece import Piece

NAME = "%Y%m%dT%H%M%SZ"
POSITIONS = "positions.json"
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_REFUSALS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Keep(NamedTuple):
    """How many hours and days are pinned; neither: none."""

    hours: int = 24
    days: int = 7


class LinkError(Exception):
    """The file system does not link files; the message is one line."""


def kept(moments: Sequence[datetime], keep: Keep, now: datetime) -> set[datetime]:
    """The moments whose pins stay: the first of each of the last hours and of each of the last UTC days."""
    found = set()
    for length, count in ((_HOUR, keep.hours), (_DAY, keep.days)):
        firsts: dict[int, datetime] = {}
        for moment in sorted(moments):
            firsts.setdefault(_number(moment, length), moment)
        found |= {moment for number, moment in firsts.items() if _number(now, length) - number < count}
    return found


def _number(moment: datetime, length: timedelta) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // length


def moments(root: Path) -> list[datetime]:
    """The pins that there are, oldest first."""
    return sorted(datetime.strptime(folder.name, NAME).replace(tzinfo=UTC) for folder in _folders(root))


def _folders(root: Path) -> list[Path]:
    pins = Layout(root).pins
    return [one for one in pins.iterdir() if not one.name.startswith(".")] if pins.is_dir() else []


def _left(root: Path) -> list[Path]:
    """What was being made or removed when somebody died."""
    pins = Layout(root).pins
    return [one for one in pins.iterdir() if one.name.startswith(".")] if pins.is_dir() else []


def plan(root: Path, keep: Keep, now_us: int) -> Iterator[Piece]:
    """The pin that is due, and those whose time is over."""
    now, there = from_us(now_us), moments(root)
    positions = Positions.load(Layout(root).positions)
    covered = from_us(positions.covered_us).replace(microsecond=0)
    staying = kept([*there, covered], keep, now)
    if positions.covered_us and covered in staying and covered not in there:
        sources = _sources(root, positions)
        sizes = [one.stat().st_size for found in sources.values() for one in found]
        yield _piece("pin", covered, len(sizes), sum(sizes), partial(write, root, positions))
    for moment in there:
        if moment not in staying:
            sizes = [one.stat().st_size for one in (Layout(root).pins / f"{moment:{NAME}}").glob("*/*.parquet")]
            yield _piece("unpin", moment, len(sizes), sum(sizes), partial(remove, root, moment))


def _piece(kind: str, moment: datetime, files: int, size: int, work: partial[None]) -> Piece:
    return Piece(kind=kind, table="pins", what=f"{moment:{NAME}}", rows=0, files=files, size=size, work=work)


def _sources(root: Path, positions: Positions) -> dict[str, list[Path]]:
    layout = Layout(root)
    return {
        name: sorted(layout.table(name).absolute() / file for file in names_of(layout.table(name), version))
        for name, version in positions.versions.items()
    }


def write(root: Path, positions: Positions) -> None:
    """Pin what positions claim: aside, then renamed, so that it is whole or absent. Raises LinkError or OSError."""
    _sweep(root)
    folder = Layout(root).pins / f"{from_us(positions.covered_us):{NAME}}"
    aside = folder.with_name(f".{folder.name}")
    make_folder(folder.parent)
    try:
        aside.mkdir()
        for name, sources in _sources(root, positions).items():
            (aside / name).mkdir()
            for source in sources:
                (aside / name / source.name).hardlink_to(source)
            fsync_folder(aside / name)
        positions.store(aside / POSITIONS)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if error.errno in _REFUSALS:
            words = f"{folder.parent} takes no hard links ({error.strerror}), so no pins: set LAMPLIGHT_PINS=0"
            raise LinkError(words) from None
        raise
    fsync_folder(folder.parent)


def remove(root: Path, moment: datetime) -> None:
    """Remove a pin: it has no name any more before the first of its files goes."""
    _sweep(root)
    folder = Layout(root).pins / f"{moment:{NAME}}"
    aside = folder.with_name(f".{folder.name}")
    folder.rename(aside)
    fsync_folder(folder.parent)
    shutil.rmtree(aside)


def _sweep(root: Path) -> None:
    for one in _left(root):
        shutil.rmtree(one)


def holding(root: Path, table: str, names: Sequence[str]) -> int:
    """How many pins hold any of a table's files."""
    return sum(any((pin / table / name).exists() for name in names) for pin in _folders(root))


def drop(root: Path, table: str, names: Sequence[str]) -> None:
    """Take files of a table out of all pins, durably."""
    for pin in _folders(root):
        for name in names:
            (pin / table / name).unlink(missing_ok=True)
        if names and (pin / table).is_dir():
            fsync_folder(pin / table)
