"""`python -m warehouse check`: what holds in every lake, one SQL file each in `sql/checks/`, whose rows break it.

A text with `$table` is asked of every table of the lake, one with `$reading` of every table of readings; `$key`,
`$message` and `$time` are then the columns that the contract names. Nothing before `$since` is read.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from contracts.schemas import MESSAGE_KEY, READING_TABLES, TABLES, Table
from contracts.settings import SettingError, positive
from contracts.times import isoformat
from warehouse.config import Config, Limits, Verbs, limit_options, limits_of
from warehouse.ledger import parse_since
from warehouse.query import Reader
from warehouse.views import View, questions

FORMATS = ("text", "json")
FIRST_ROWS = 5
FRESHNESS = "lake_is_fresh"
DEFAULT_SPAN = timedelta(days=1)
LIMITS = Limits()
# sums of floats depend on their order; a direction is the angle of sums that may nearly cancel out
_MACROS = (
    "CREATE TEMP MACRO is_near(one, other) AS one IS NOT DISTINCT FROM other "
    "OR coalesce(abs(one - other) <= 1e-9 * greatest(abs(one), abs(other), 1), false)",
    "CREATE TEMP MACRO is_near_direction(one, other) AS one IS NOT DISTINCT FROM other "
    "OR coalesce(abs(((one - other + 180) % 360 + 360) % 360 - 180) <= 1e-6, false)",
    # the value of merged state by the quantity's own method, a direction in (-180, 180]
    "CREATE TEMP MACRO value_of(aggregation, count, total, energy, sine, cosine, units, greatest, growth) AS CASE "
    "WHEN count = 0 THEN NULL WHEN aggregation = 'mean' THEN total / count "
    "WHEN aggregation = 'circular' AND units = 0 THEN 0 "
    "WHEN aggregation = 'circular' AND sqrt(sine ** 2 + cosine ** 2) > 1e-9 * units THEN degrees(atan2(sine, cosine)) "
    "WHEN aggregation = 'energy mean' THEN 10 * log10(energy / count) "
    "WHEN aggregation = 'sum' THEN total WHEN aggregation = 'maximum' THEN greatest "
    "WHEN aggregation = 'counter difference' THEN growth END",
)
_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`names`: these checks, every one when empty; `since`: from this moment on, None: the last day of the lake's data;
    `fresh_s`: how old the newest data may be, None: any age."""

    names: tuple[str, ...] = ()
    since: datetime | None = None
    fresh_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found: how many rows break it, and the first of them."""

    check: View
    wrong_count: int
    rows: list[dict[str, Any]]


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("check", help="what holds in every lake: say which rows break it")
    parser.add_argument("names", nargs="*", metavar="CHECK", help=f"these only: {', '.join(checks())}")
    parser.add_argument("--since", type=parse_since, metavar="TIME", help="30m, 2d or a time; default: the last day")
    parser.add_argument("--fresh", type=parse_seconds, metavar="S", help="and the newest data is at most S seconds old")
    parser.add_argument("--format", choices=FORMATS, default="text")
    limit_options(parser)
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Check as the options say; 1 when rows break a check. Raises SettingError."""
    asked = Asked(names=tuple(options.names), since=options.since, fresh_s=options.fresh)
    return print_checks(config.catalogue, asked, options.format, limits_of(config, options))


@cache
def checks() -> dict[str, View]:
    """Every check by its name."""
    return questions("checks")


def parse_seconds(text: str) -> float:
    """Seconds from text. Raises SettingError."""
    try:
        return positive(text)
    except ValueError as error:
        raise SettingError(f"--fresh {text!r} is not usable: {error}") from error


def print_checks(path: Path, asked: Asked, form: str, limits: Limits) -> int:
    """Check a catalogue and print what was found; 0, or 1 when anything is wrong. Raises SettingError. The limits are
    those of each check."""
    wrong: list[str] = []
    found = []
    for finding in find(path, asked, limits):
        if finding.wrong_count:
            wrong.append(finding.check.name)
        if form == "json":
            found.append(_object(finding))
        else:
            for line in _lines(finding):
                print(line, flush=True)
    if form == "json":
        print(json.dumps(found, ensure_ascii=False, indent=1))
    return 1 if wrong else 0


def find(path: Path, asked: Asked, limits: Limits = LIMITS) -> Iterator[Finding]:
    """What each check finds, one after the other. Raises SettingError for a name that is no check, and for one that
    takes more than its limits."""
    known = checks()
    if unknown := set(asked.names) - known.keys():
        raise SettingError(f"no check {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    is_timed = asked.fresh_s is not None
    if FRESHNESS in asked.names and not is_timed:
        raise SettingError(f"{FRESHNESS} needs --fresh SECONDS")
    names = asked.names or [name for name in known if name != FRESHNESS or is_timed]
    with Reader(path, limits) as reader:
        connection = reader.connection
        with reader.asked():
            for macro in _MACROS:
                connection.execute(macro)
            since = asked.since or _last_day(connection)
        for name in names:
            with reader.asked(name):
                finding = _ask(connection, known[name], since, asked.fresh_s or 0)
            yield finding


def _last_day(connection: duckdb.DuckDBPyConnection) -> datetime:
    through: datetime | None = connection.execute("SELECT data_through FROM main.state").fetchall()[0][0]
    return (through or datetime.now(UTC)) - DEFAULT_SPAN


def _ask(connection: duckdb.DuckDBPyConnection, check: View, since: datetime, fresh_s: float) -> Finding:
    count = 0
    first: list[dict[str, Any]] = []
    moment = f"TIMESTAMPTZ '{since.isoformat()}'"
    for text in _texts(check.body.replace("$since", moment).replace("$fresh_s", str(fresh_s))):
        done = connection.execute(text)
        names = [column[0] for column in done.description or ()]
        while rows := done.fetchmany(_AT_ONCE):
            count += len(rows)
            first += [dict(zip(names, row, strict=True)) for row in rows[: FIRST_ROWS - len(first)]]
    return Finding(check=check, wrong_count=count, rows=first)


def _texts(text: str) -> Iterator[str]:
    """The text as it is, or once for each table that it is asked of."""
    tables: Sequence[Table] = tuple(TABLES.values()) if "$table" in text else READING_TABLES
    if "$table" not in text and "$reading" not in text:
        yield text
        return
    for table in tables:
        message = [name for name in ("stream", "kind") if name in table.key] + list(MESSAGE_KEY)
        named = {"$table": table.name, "$reading": table.name, "$time": table.time}
        named |= {"$key": ", ".join(table.identity), "$message": ", ".join(message)}
        filled = text
        for placeholder, value in named.items():
            filled = filled.replace(placeholder, value)
        yield filled


def _lines(finding: Finding) -> Iterator[str]:
    name, count = finding.check.name, finding.wrong_count
    if not count:
        yield f"{name:32}ok"
        return
    yield f"{name:32}{count:,} {'row' if count == 1 else 'rows'} wrong. {finding.check.meaning}"
    for row in finding.rows:
        yield "  " + " ".join(f"{column}={_said(value)}" for column, value in row.items())
    if count > len(finding.rows):
        yield f"  and {count - len(finding.rows):,} more"


def _object(finding: Finding) -> dict[str, Any]:
    rows = [{column: _plain(value) for column, value in row.items()} for row in finding.rows]
    return {"check": finding.check.name, "meaning": finding.check.meaning, "wrong": finding.wrong_count, "rows": rows}


def _plain(value: object) -> object:
    """A value as JSON has it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return isoformat(value) if isinstance(value, datetime) else str(value)


def _said(value: object) -> str:
    return "none" if value is None else str(_plain(value))
