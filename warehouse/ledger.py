"""The loss ledger for people: what was expected, what became of it, and whether it adds up."""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from contracts.settings import SettingError
from contracts.times import isoformat
from warehouse.config import Config, Verbs
from warehouse.query import one_line, open_catalogue

FORMATS = ("table", "csv", "json")
KEYS = {"post": "post_id", "stream": "stream", "hour": "window_start"}
COUNTS = ("expected", "accepted", "quarantined", "dropped", "missing", "awaited", "keyless", "duplicate", "conflicting")
LATE = ("late_minutes", "late_hours", "late_days")
MAX_ROWS = 40
_AGO = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_SUMS = ", ".join(f"sum({name}_count) AS {name}" for name in (*COUNTS, *LATE))
_ADDS_UP = "expected_count = accepted_count + quarantined_count + dropped_count + missing_count"


@dataclass(frozen=True, kw_only=True)
class Question:
    """`since`: the hours from this moment's on; `posts`: these only, all when empty; `by`: names of KEYS."""

    since: datetime | None
    posts: tuple[str, ...]
    by: tuple[str, ...]


def parse_since(text: str, option: str = "--since") -> datetime:
    """A moment (ISO 8601, UTC unless it says otherwise), or how long ago: 30m, 1h, 2d. Raises SettingError."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingError(f"{option} {text!r} is no time: give 1h, 2d or 2026-11-21T08:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("ledger", help="was anything lost: expected = accepted + quarantined + dropped + missing")
    parser.add_argument("--since", type=parse_since, metavar="TIME", help="30m, 1h, 2d or a time; default: everything")
    parser.add_argument("--post", nargs="+", default=[], metavar="POST", help="these posts only")
    parser.add_argument("--by", nargs="+", choices=(*KEYS, "total"), default=["post", "stream"], help="what a row is")
    parser.add_argument("--format", choices=FORMATS, default="table", help="csv, json: every row, clean or not")
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Print the account; 1 when it does not add up. Raises SettingError."""
    by = tuple(name for name in KEYS if name in options.by)
    return print_ledger(
        config.catalogue, Question(since=options.since, posts=tuple(options.post), by=by), options.format
    )


def print_ledger(path: Path, question: Question, form: str) -> int:
    """Print the account that a catalogue gives; 0, or 1 when it does not add up. Raises SettingError."""
    with open_catalogue(path) as connection:
        try:
            _take(connection, question)
            if form == "table":
                for line in _report(connection, question):
                    print(line)
            else:
                _print_rows(_rows(connection, question.by), form)
            wrong = _ask(connection, f"SELECT 1 FROM account WHERE NOT ({_ADDS_UP})")
        except duckdb.Error as error:
            raise SettingError(f"the ledger cannot be made from {path}: {one_line(error)}") from error
    return 1 if wrong else 0


def _take(connection: duckdb.DuckDBPyConnection, question: Question) -> None:
    """The rows in question, counted once, as the temporary table `account`."""
    source = "ledger" if question.since is None else f"ledger_since('{question.since.isoformat()}'::TIMESTAMPTZ)"
    condition = "list_contains(?, post_id)" if question.posts else "true OR ? IS NULL"
    connection.execute(f"CREATE TEMP TABLE account AS SELECT * FROM {source} WHERE {condition}", [list(question.posts)])


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    done = connection.execute(query)
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def _rows(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> list[dict[str, Any]]:
    """The account by some of its keys, one row in all when there are none. Messages without a key are counted beside
    the others."""
    keys = [KEYS[name] for name in by]
    grouped = f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(f'{key} NULLS LAST' for key in keys)}" if keys else ""
    return _ask(connection, f"SELECT {''.join(f'{key}, ' for key in keys)}{_SUMS} FROM account {grouped}")


def _print_rows(rows: list[dict[str, Any]], form: str) -> None:
    shown = [
        {name: isoformat(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows
    ]
    if form == "json":
        print(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(shown)


def _report(connection: duckdb.DuckDBPyConnection, question: Question) -> Iterator[str]:
    total = {name: count or 0 for name, count in _rows(connection, ())[0].items()}
    yield from _heading(connection, question)
    yield ""
    what = {
        "expected": "messages that the posts have made",
        "accepted": "are readings in the lake",
        "quarantined": "were refused and lie in quarantine with their bytes",
        "dropped": "were given up by the post, which said so",
        "missing": "never landed, and nothing explains them",
    }
    for sign, (name, meaning) in zip(" =+++", what.items(), strict=True):
        yield f"  {sign} {name:12}{total[name]:>14,}  {meaning}"
    if total["awaited"]:
        yield f"    {'':12}{'':14}  ({total['awaited']:,} of these the post still holds or may hold: they may yet come)"
    yield ""
    yield from _verdict(connection, total)
    yield ""
    yield from _unclean(connection, question.by)
    yield from _beside(connection, total)


def _heading(connection: duckdb.DuckDBPyConnection, question: Question) -> Iterator[str]:
    first, last, covered = connection.execute(
        "SELECT min(window_start), max(window_start) + INTERVAL 1 HOUR, (SELECT max(covered_time) FROM snapshot) "
        "FROM account"
    ).fetchall()[0]
    posts = f" of {', '.join(question.posts)}" if question.posts else ""
    span = f", {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC" if first else ": nothing has landed"
    yield f"Loss account{posts}{span}"
    yield f"(everything that was stored by {covered:%Y-%m-%d %H:%M:%S} UTC)"


def _verdict(connection: duckdb.DuckDBPyConnection, total: dict[str, int]) -> Iterator[str]:
    wrong = _ask(connection, f"SELECT * FROM account WHERE NOT ({_ADDS_UP}) ORDER BY ALL")
    parts = " + ".join(f"{total[name]:,}" for name in ("accepted", "quarantined", "dropped", "missing"))
    if not wrong:
        yield f"It adds up: {total['expected']:,} = {parts}, in every post, stream and hour."
        return
    yield f"IT DOES NOT ADD UP in {len(wrong):,} rows: {total['expected']:,} against {parts}. The first:"
    for row in wrong[:5]:
        yield f"  {row['post_id']} {row['stream']} {row['window_start']:%Y-%m-%d %H:%M}"


def _unclean(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> Iterator[str]:
    """Rows with something missing or dropped."""
    if not by:
        return
    rows = [row for row in _rows(connection, by) if row["missing"] or row["dropped"]]
    if not rows:
        yield "Nothing is missing and nothing was dropped."
        return
    keys = [KEYS[name] for name in by]
    names = [*keys, "expected", "accepted", "quarantined", "dropped", "missing", "awaited"]
    rows.sort(key=lambda row: (-row["missing"], -row["dropped"]))
    cells = [[_cell(row[name]) for name in names] for row in rows[:MAX_ROWS]]
    titles = [*by, *names[len(keys) :]]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    yield "Where something is missing or was dropped (the seqs: views missing_ranges, dropped_ranges):"
    for line in (titles, *cells):
        aligned = (
            text.ljust(width) if place < len(keys) else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        yield f"  {'  '.join(aligned)}".rstrip()
    if len(rows) > MAX_ROWS:
        yield f"  and {len(rows) - MAX_ROWS:,} more: --format csv has them all"


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _beside(connection: duckdb.DuckDBPyConnection, total: dict[str, int]) -> Iterator[str]:
    reasons = {
        is_keyless: ", ".join(f"{reason} {count:,}" for reason, count in found)
        for is_keyless in (False, True)
        if (
            found := connection.execute(
                "SELECT entry.key, sum(entry.value) FROM (SELECT unnest(map_entries(quarantine_reasons)) AS entry "
                "FROM account WHERE is_keyless = ?) GROUP BY 1 ORDER BY 2 DESC, 1",
                [is_keyless],
            ).fetchall()
        )
    }
    late = ", ".join(f"{total[f'late_{unit}']:,} by {unit}" for unit in ("minutes", "hours", "days"))
    yield ""
    yield "Beside the account:"
    yield f"  quarantined by reason    {reasons.get(False, 'none')}"
    yield f"  refused without a key    {reasons.get(True, 'none')}"
    if total["keyless"]:
        yield "                           (their bytes do not tell which message they were, so that one is above as"
        yield "                           dropped or missing)"
    yield f"  copies removed           {total['duplicate']:,}"
    yield f"  other bytes, same seq    {total['conflicting']:,}"
    yield f"  accepted late            {late}"
