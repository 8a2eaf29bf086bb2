"""Logs of several days: the messages of a few minutes around midnight, moved by days."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path

import polars as pl

from bench import pipeline
from contracts.quantities import QUANTITIES
from contracts.schemas import TABLES, Table
from contracts.times import isoformat, to_us
from pipelines import lake, tidy
from pipelines.kernels.decode import Tolerance
from pipelines.stages import Setup
from tests.pipelines.raw_log import START, Landed, land, make_root, messages

_TIME = re.compile(rb'"time":"([^"]+)"')
MIDNIGHT = START.replace(hour=0)
EVER = Tolerance(retention_s={})


def moved(row: Landed, by: timedelta) -> Landed:
    """The message at another time."""

    def later(found: re.Match[bytes]) -> bytes:
        return b'"time":"' + isoformat(datetime.fromisoformat(found[1].decode()) + by).encode() + b'"'

    return Landed(row.topic, _TIME.sub(later, row.payload), row.received + by)


def days(count: int, minutes: int = 6, seed: int = 1) -> list[list[Landed]]:
    """Messages around the midnight that each of the last days begins with, the newest day first."""
    rows = messages(seed, minutes)
    begin = MIDNIGHT - timedelta(minutes=minutes // 2) - START
    return [[moved(row, begin - timedelta(days=day)) for row in rows] for day in range(count)]


def together(parts: Iterable[list[Landed]]) -> list[Landed]:
    return list(chain.from_iterable(parts))


def setup_of(root: Path, is_sole_owner: bool = True) -> Setup:
    layout = make_root(root)
    lake.versions(root)
    return Setup(root=root, registry=layout.registry, tolerance=EVER, is_sole_owner=is_sole_owner)


def take_up(setup: Setup, landed: list[Landed], first: int = 0) -> None:
    """Bring messages into the tables, without Beam."""
    pipeline.plain(setup, [land(setup.layout, landed, first=first)])


def stream_of(table: Table, row: dict[str, object]) -> str:
    """The stream that a row comes from: the tests' own way to tell."""
    if "quantity" in row:
        return QUANTITIES[str(row["quantity"])].stream
    return str(row.get("stream") or table.stream or "traffic")


def streams(name: str, frame: pl.DataFrame) -> pl.Series:
    table = TABLES[name]
    return pl.Series([stream_of(table, row) for row in frame.iter_rows(named=True)], dtype=pl.String)


def tidied(root: Path, rules: tidy.Rules, now: datetime) -> list[str]:
    """What a round of housekeeping did, in lines."""
    return [piece.line for piece in tidy.carry_out(root, tidy.plan(root, rules, to_us(now))) if piece.files]
