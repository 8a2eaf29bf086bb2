"""`python -m warehouse verify`: windows of randomly drawn hours computed again from the readings, and compared.

The SQL in `sql/verify/` shares no code with the pipeline's kernels: whatever both say is what the readings say. An hour
of a post is drawn as a whole, so that windows which are missing, or too many, are found too.
"""

import argparse
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from contracts.quantities import QUANTITIES, Aggregation
from contracts.settings import SettingError
from contracts.times import isoformat
from warehouse.config import Config, Limits, Verbs, limit_options, limits_of
from warehouse.query import Reader
from warehouse.views import View, questions

SAMPLE = 200
MAX_LINES = 50
LIMITS = Limits()
# per table of windows the text that computes it, and the column that tells its rows apart beside post and time
TABLES = {"windows": ("values", "quantity"), "hours": ("values", "quantity"), "flow_windows": ("flows", "direction")}
TOLERANCE = 1e-9  # sums of floats depend on their order
DIRECTION_TOLERANCE_DEG = 1e-6  # the angle of sums that may nearly cancel out
_DAY = timedelta(days=1)

Key = tuple[object, ...]
Rows = dict[Key, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A column of a window that does not say what the readings say; no column: the window is on one side only."""

    table: str
    key: Key
    column: str | None
    stored: object
    computed: object

    def __str__(self) -> str:
        cell = " ".join(isoformat(part) if isinstance(part, datetime) else str(part) for part in self.key)
        if self.column is None:
            return f"{self.table} {cell}: {'is missing' if self.stored is None else 'has no readings'}"
        return f"{self.table} {cell}: {self.column} is {self.stored}, from the readings {self.computed}"


@cache
def _texts() -> dict[str, View]:
    return questions("verify")


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("verify", help="compute windows of drawn hours again from the readings, and compare")
    parser.add_argument(
        "--sample", type=parse_sample, default=SAMPLE, metavar="N", help="so many hours of one post each"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="draw the same hours again; default: others each time")
    limit_options(parser)
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Verify as the options say; 1 when windows differ. Raises SettingError."""
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    return print_verification(config.catalogue, options.sample, seed, limits_of(config, options))


def parse_sample(text: str) -> int:
    """How many hours of a post are drawn. Raises SettingError."""
    if not text.isdigit() or not int(text):
        raise SettingError(f"--sample {text!r} is not usable: a whole number above zero is needed")
    return int(text)


def print_verification(path: Path, sample: int, seed: int, limits: Limits = LIMITS) -> int:
    """Verify a catalogue and print what differs; 0, or 1 when anything does. Raises SettingError. The limits are those
    of each day that hours are drawn of."""
    compared, wrong = 0, 0
    with Reader(path, limits) as reader:
        with reader.asked():
            days = _draw(reader.connection, sample, seed)
        if not days:
            raise SettingError(f"{path} holds no hour with readings: nothing to verify")
        for day in days:
            with reader.asked(f"verification of {day:%Y-%m-%d}"):
                both = list(_both(reader.connection, day))
            for table, computed, stored in both:
                compared += len(computed.keys() | stored.keys())
                for difference in differences(table, computed, stored):
                    wrong += 1
                    if wrong <= MAX_LINES:
                        print(difference, flush=True)
        hours = reader.connection.execute("SELECT count(*) FROM sampled").fetchall()[0][0]
    if wrong > MAX_LINES:
        print(f"and {wrong - MAX_LINES:,} more")
    said = f"{wrong:,} figures differ" if wrong else "all as the readings say"
    print(f"{compared:,} windows of {hours:,} hours of posts (--seed {seed}): {said}")
    return 1 if wrong else 0


def _draw(connection: duckdb.DuckDBPyConnection, sample: int, seed: int) -> list[datetime]:
    """Draw post-hours into the temporary table `sampled`, none before any table's readings begin: retention may have
    taken those of which its windows are made. The days that they lie in."""
    connection.execute(
        f"""
        CREATE TEMP TABLE sampled AS
        WITH posts AS (
            SELECT post_id FROM lake.hours UNION SELECT post_id FROM lake.flow_windows
            UNION SELECT post_id FROM city.lamppost_entries
        ),
        hours AS (
            SELECT window_start AS hour FROM lake.hours
            UNION SELECT time_bucket(INTERVAL 1 HOUR, window_start) FROM lake.flow_windows
        )
        SELECT post_id, hour FROM posts CROSS JOIN hours
        WHERE hour >= ALL (
            SELECT time_bucket(INTERVAL 1 HOUR, first_time) FROM main.snapshot
            WHERE table_name IN ('observations', 'lane_flows', 'footfall') AND first_time IS NOT NULL
        )
        -- counters look back for twenty minutes, so a whole hour must have all of its readings
        AND hour > coalesce(
            (SELECT max(kept_from) FROM quality.removed WHERE table_name IN ('observations', 'footfall', 'lane_flows')),
            '-infinity'
        )
        ORDER BY md5(concat_ws(' ', post_id, epoch_us(hour), {seed})) LIMIT {sample}
        """
    )
    found = connection.execute("SELECT DISTINCT time_bucket(INTERVAL 1 DAY, hour) FROM sampled ORDER BY 1").fetchall()
    return [day for (day,) in found]


def _both(connection: duckdb.DuckDBPyConnection, day: datetime) -> Iterator[tuple[str, Rows, Rows]]:
    """Of each table of windows the sampled rows of a day, as computed and as stored."""
    since, until = (f"TIMESTAMPTZ '{moment.isoformat()}'" for moment in (day, day + _DAY))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE cells AS "
        f"SELECT post_id, hour FROM sampled WHERE hour >= {since} AND hour < {until}"
    )
    for table, (text, cell) in TABLES.items():
        query = _texts()[text].body.replace("$since", since).replace("$until", until)
        period = f"(SELECT max(period_s) FROM lake.{table})"
        computed = _rows(connection, query.replace("$period_s", period), cell)
        stored = _rows(
            connection,
            f"SELECT stored.* FROM lake.{table} AS stored SEMI JOIN cells "
            "ON cells.post_id = stored.post_id AND hour = time_bucket(INTERVAL 1 HOUR, window_start) "
            f"WHERE window_start >= {since} AND window_start < {until}",
            cell,
        )
        yield table, computed, stored


def _rows(connection: duckdb.DuckDBPyConnection, query: str, cell: str) -> Rows:
    done = connection.execute(query)
    names = [column[0] for column in done.description or ()]
    rows = (dict(zip(names, row, strict=True)) for row in done.fetchall())
    return {(row["post_id"], row[cell], row["window_start"]): row for row in rows}


def differences(table: str, computed: Rows, stored: Rows) -> Iterator[Difference]:
    """What of the stored rows is not as computed, in the columns that were computed."""
    for key in sorted(computed.keys() | stored.keys(), key=str):
        one, other = computed.get(key), stored.get(key)
        if one is None or other is None:
            yield Difference(table=table, key=key, column=None, stored=other, computed=one)
            continue
        is_circular = key[1] in QUANTITIES and QUANTITIES[str(key[1])].aggregation is Aggregation.CIRCULAR
        for column, value in one.items():
            if not _is_same(value, other[column], is_direction=is_circular and column == "value"):
                yield Difference(table=table, key=key, column=column, stored=other[column], computed=value)


def _is_same(one: object, other: object, is_direction: bool) -> bool:
    if not isinstance(one, (int, float)) or not isinstance(other, (int, float)):
        return one == other
    if is_direction:
        return abs((one - other + 180) % 360 - 180) <= DIRECTION_TOLERANCE_DEG
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
