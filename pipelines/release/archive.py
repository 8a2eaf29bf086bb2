"""The open archive: one immutable Parquet file per product and window, and manifests that name them.

A manifest per product and day keeps an append cheap (at most a few hundred entries are written again), and an index
over the days makes all of them findable. Order of writing: file, day, index, each durable. A crash between them
leaves a file that no manifest names or an index that is behind; archiving the same window again mends both.
"""

import hashlib
import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl

from contracts.feeds import ARCHIVE, FEED_VERSION, MANIFEST, archive_day, archive_name
from contracts.layout import write_durably
from contracts.products import ATTRIBUTION, LICENCE, Product
from contracts.times import isoformat
from pipelines.release.rendering import FeedMeta, NotPublic, conform, named, to_parquet


class Drawn(Exception):
    """A noised window was published already, with other figures: noise is drawn once (law 7)."""


class ArchivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One archived file; `path` is relative to archive/v1. Of a window's revisions exactly one is current."""

    path: str
    bytes: int
    rows: int
    sha256: str
    product: str
    window_start: str
    window_end: str
    revision: int
    is_current: bool
    schema_version: int = FEED_VERSION


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """Manifest of one product and UTC day."""

    product: str
    date: str
    files: tuple[ArchivedFile, ...] = ()
    licence: str = LICENCE
    attribution: str = ATTRIBUTION
    schema_version: int = FEED_VERSION


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A day in the index; `manifest` is relative to archive/v1. `files`, `rows` and `bytes` are those of current
    revisions."""

    product: str
    date: str
    manifest: str
    files: int
    rows: int
    bytes: int
    last_window_end: str
    revisions: int


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """All days of all products, by product and date."""

    days: tuple[IndexEntry, ...] = ()
    licence: str = LICENCE
    attribution: str = ATTRIBUTION
    schema_version: int = FEED_VERSION


S = TypeVar("S", bound=msgspec.Struct)


def _load(path: Path, empty: S) -> S:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(empty))
    except FileNotFoundError:
        return empty


def _store(path: Path, document: msgspec.Struct) -> None:
    write_durably(path, msgspec.json.format(msgspec.json.encode(document), indent=1))


def _holds(path: Path, frame: pl.DataFrame) -> bool:
    """Whether a file holds these rows; its bytes may differ when another version of the library wrote it."""
    return pl.read_parquet(io.BytesIO(path.read_bytes()), hive_partitioning=False).equals(frame)


def archive_window(
    open_folder: Path, product: Product, window_start: datetime, rows: pl.DataFrame, meta: FeedMeta
) -> bool:
    """Archive a closed window for good; False when it is there already with the same rows.

    Other rows for a window of an exact product become a new revision, the older ones stay as superseded. Raises Drawn
    for other rows of a noised window, NotPublic for rows that are not the product's or not of this window.
    """
    frame = conform(product, rows)
    if not (frame["window_start"] == window_start).all():
        raise NotPublic(f"{product.name}: rows of other windows than {isoformat(window_start)}")
    window_end = window_start + timedelta(seconds=meta.period_s)
    root, folder = open_folder / ARCHIVE, archive_day(product.name, window_start)
    day_path = open_folder / folder / MANIFEST
    day = _load(day_path, Day(product=product.name, date=f"{folder.name.removeprefix('date=')}"))
    start = isoformat(window_start)
    revisions = [entry for entry in day.files if entry.window_start == start]
    current = next((entry for entry in revisions if entry.is_current), None)
    is_new = current is None or not _holds(root / current.path, frame)
    if is_new:
        content = to_parquet(product.schema, frame, _head(product, start, isoformat(window_end), meta.period_s))
        sha256 = hashlib.sha256(content).hexdigest()
        path = open_folder / folder / archive_name(window_start, sha256)
        if product.is_noised:
            _refuse_redraw(path, frame)
        if not path.exists():
            write_durably(path, content)
        entry = ArchivedFile(
            path=path.relative_to(root).as_posix(),
            bytes=len(content),
            rows=frame.height,
            sha256=sha256,
            product=product.name,
            window_start=start,
            window_end=isoformat(window_end),
            revision=len(revisions) + 1,
            is_current=True,
        )
        day = msgspec.structs.replace(day, files=_superseded(day.files, start, entry))
        _store(day_path, day)
    _enter(root / MANIFEST, day)
    return is_new


def _head(product: Product, start: str, end: str, period_s: int) -> dict[str, str | int | bool]:
    return {
        **named(product),
        "window_start": start,
        "window_end": end,
        "period_s": period_s,
        "is_noised": product.is_noised,
        "schema_version": FEED_VERSION,
    }


def _refuse_redraw(path: Path, frame: pl.DataFrame) -> None:
    """Raise Drawn when any file of this window, named by a manifest or left by a crash, holds other figures."""
    window = path.name.partition("-")[0]
    for drawn in sorted(path.parent.glob(f"{window}-*.parquet")):
        if not _holds(drawn, frame):
            raise Drawn(f"{drawn.name} was published with other figures; noise is never redrawn")


def _superseded(files: tuple[ArchivedFile, ...], start: str, entry: ArchivedFile) -> tuple[ArchivedFile, ...]:
    kept = [
        msgspec.structs.replace(old, is_current=False) if old.window_start == start and old.is_current else old
        for old in files
    ]
    return tuple(sorted([*kept, entry], key=lambda file: (file.window_start, file.revision)))


def _enter(path: Path, day: Day) -> None:
    """Make the index say what a day's manifest says; nothing is written when it does."""
    current = [file for file in day.files if file.is_current]
    entry = IndexEntry(
        product=day.product,
        date=day.date,
        manifest=f"product={day.product}/date={day.date}/{MANIFEST}",
        files=len(current),
        rows=sum(file.rows for file in current),
        bytes=sum(file.bytes for file in current),
        last_window_end=max((file.window_end for file in current), default=""),
        revisions=len(day.files),
    )
    index = _load(path, Index())
    if entry in index.days:
        return
    others = (old for old in index.days if (old.product, old.date) != (day.product, day.date))
    days = sorted([*others, entry], key=lambda day: (day.product, day.date))
    _store(path, msgspec.structs.replace(index, days=tuple(days)))
