"""`make bench-warehouse`: what an analyst waits for on a month of 400 posts, and what the month takes on disk.

`query.latest_ms`: the latest value of every post and quantity, a tenth of the posts silent for most of the month; it
must be equal to what the readings say. `query.month_hourly_ms`: one post's hourly values of all its quantities, of the
whole month. `query.city_day_ms`: a day of the city by area and quarter hour, of one quantity; `/all`: of all. Each is
a median on an open connection, `/fresh` that of opening the catalogue, asking and closing. Posts, days and quantities
change from round to round. `query.*.glob/ours`: the same question to our own compacted readings by a glob, in the same
run.

`storage.bytes_per_reading`: what the lake takes on disk, all in, by rows of its reading tables. `catalogue.publish_ms`:
median of publishing as `publish --follow` does, with what it keeps from one time to the next, when
each table has another file.

The part `analysts` is in bench/analysts.py. `--root` keeps the lake and uses one that is there (bench/month.py).
"""

import argparse
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from statistics import median

import duckdb
import polars as pl

from bench import analysts
from bench.figures import figure
from bench.month import disk_bytes, month
from contracts.layout import Layout
from contracts.quantities import QUANTITIES, of_stream
from contracts.schemas import FOOTFALL, OBSERVATIONS, READING_TABLES, TABLES, Table
from contracts.times import US, from_us
from pipelines import lake
from warehouse.catalogue import Kept, publish
from warehouse.config import Config
from warehouse.query import open_catalogue
from warehouse.views import quoted

ROUNDS = 31
GLOB_ROUNDS = 3
PUBLISHINGS = 31
_USED = "flag IN (1, 2) AND NOT is_conflicting AND value IS NOT NULL"
_CROSSINGS = ("crossings_in_count", "crossings_out_count")


@dataclass(frozen=True)
class Facts:
    """What the questions are about; times in microseconds."""

    posts: list[str]
    quantities: list[str]
    start_us: int
    end_us: int

    def day(self, random: Random) -> str:
        """A condition on window_start: a day of the month."""
        days = max(1, (self.end_us - self.start_us) // (86_400 * US))
        start = from_us(self.start_us) + timedelta(days=random.randrange(days))
        return f"window_start >= TIMESTAMPTZ '{start}' AND window_start < TIMESTAMPTZ '{start + timedelta(days=1)}'"


def latest(_: Facts, __: Random) -> str:
    """The latest value of every post and quantity."""
    return "SELECT * FROM latest"


def month_hourly(facts: Facts, random: Random) -> str:
    """A post's hours of the month."""
    return f"SELECT quantity, window_start, value FROM hourly WHERE post_id = '{random.choice(facts.posts)}'"


def city_day(facts: Facts, random: Random) -> str:
    """A day of the city by area and quarter hour, of one quantity."""
    quantity = random.choice(facts.quantities)
    return city_day_all(facts, random, f"AND quantity = '{quantity}'")


def city_day_all(facts: Facts, random: Random, more: str = "") -> str:
    """The same of every quantity."""
    return (
        "SELECT area, quantity, window_start, avg(value) AS value FROM value_windows JOIN lampposts USING (post_id) "
        f"WHERE period_s = 900 AND {facts.day(random)} {more} GROUP BY ALL"
    )


QUESTIONS = {
    "latest_ms": latest,
    "month_hourly_ms": month_hourly,
    "city_day_ms": city_day,
    "city_day_ms/all": city_day_all,
}


def glob(layout: Layout, table: Table) -> str:
    """A table of the lake by the names of its files only."""
    return f"read_parquet({quoted(str(layout.table(table.name).absolute() / '*.parquet'))})"


def latest_of(values: str, crossings: str) -> str:
    """The latest values used, by the readings themselves."""
    parts = [
        "SELECT post_id, quantity, arg_max(value, event_time) AS value, max(event_time) AS event_time "
        f"FROM {values} WHERE {_USED} GROUP BY post_id, quantity"
    ]
    parts += [
        f"SELECT post_id, '{name}', arg_max({name}, event_time)::DOUBLE, max(event_time) FROM {crossings} "
        "WHERE flag IN (1, 2) AND NOT is_conflicting GROUP BY post_id"
        for name in _CROSSINGS
    ]
    return " UNION ALL ".join(parts)


def hours_of(post_id: str, values: str, crossings: str) -> str:
    """A post's hours by the readings themselves, each quantity by its method; restarts of counters are left out."""
    methods = ", ".join(f"({quoted(row.name)}, {quoted(row.aggregation.value)})" for row in QUANTITIES.values())
    hour = "time_bucket(INTERVAL 1 HOUR, event_time) AS window_start"
    here = f"post_id = {quoted(post_id)} AND flag IN (1, 2) AND NOT is_conflicting"
    parts = [
        f"""SELECT quantity, {hour}, CASE method
            WHEN 'circular' THEN degrees(atan2(avg(sin(radians(value))), avg(cos(radians(value)))))
            WHEN 'energy mean' THEN 10 * log10(avg(pow(10, value / 10)))
            WHEN 'maximum' THEN max(value)
            WHEN 'counter difference' THEN max(value) - min(value)
            ELSE avg(value)
        END AS value
        FROM {values} JOIN (VALUES {methods}) AS methods (quantity, method) USING (quantity)
        WHERE {here} AND value IS NOT NULL GROUP BY quantity, method, window_start"""
    ]
    parts += [
        f"SELECT '{name}', {hour}, sum({name})::DOUBLE FROM {crossings} WHERE {here} GROUP BY ALL"
        for name in _CROSSINGS
    ]
    return " UNION ALL ".join(parts)


def ask(connection: duckdb.DuckDBPyConnection, question: str) -> tuple[float, pl.DataFrame]:
    """Milliseconds until the answer is a frame, and the answer."""
    began = time.perf_counter()
    answer: pl.DataFrame = connection.sql(question).pl()
    return (time.perf_counter() - began) * 1000, answer


def questions(root: Path, arguments: argparse.Namespace) -> None:
    """Figures of storage, publishing and questions. Raises LookupError when an answer is wrong."""
    facts = month(root, arguments.days, arguments.posts)
    layout = Layout(root)
    readings = sum(lake.count_rows(root, table.name) for table in READING_TABLES)
    files = max(len(lake.open_table(root, name).file_uris()) for name in TABLES)
    taken = disk_bytes(layout.lake)
    much = {"readings": readings, "files_per_table": files}
    figure("storage.bytes_per_reading", value=taken / readings, unit="bytes", bytes=taken, **much)
    _publish(root)
    with open_catalogue(layout.catalogue) as connection:
        posts = [row[0] for row in connection.execute("SELECT DISTINCT post_id FROM hourly").fetchall()]
        asked = Facts(
            posts=sorted(posts),
            quantities=[row.name for row in of_stream("weather")[:3]],
            start_us=facts["start_us"],
            end_us=facts["start_us"] + facts["minutes"] * 60 * US,
        )
        _check(connection)
        texts = {
            name: [question(asked, Random(f"{name} {number}")) for number in range(ROUNDS)]
            for name, question in QUESTIONS.items()
        }
        ours = {name: median(ask(connection, text)[0] for text in some) for name, some in texts.items()}
        for name, spent in ours.items():
            figure(f"query.{name}", value=spent, unit="ms", rounds=ROUNDS, **much)
        values, crossings = glob(layout, OBSERVATIONS), glob(layout, FOOTFALL)
        hours = hours_of(asked.posts[0], values, crossings)
        for name, text in (("latest", latest_of(values, crossings)), ("month_hourly", hours)):
            theirs = median(ask(connection, text)[0] for _ in range(GLOB_ROUNDS))
            figure(f"query.{name}.glob/ours", value=theirs, unit="ms", against=ours[f"{name}_ms"], rounds=GLOB_ROUNDS)
    for name, some in texts.items():
        spent = median(_ask_fresh(layout.catalogue, text) for text in some)
        figure(f"query.{name}/fresh", value=spent, unit="ms", rounds=ROUNDS)


def _publish(root: Path) -> None:
    config, spent = Config.build({}, root), []
    with closing(Kept()) as kept:
        whole = kept.current(config.layout)
        # each has other files than the one before, as after a tick
        fewer = replace(whole, files={name: files[:-1] for name, files in whole.files.items()})
        for number in range(PUBLISHINGS + 2):
            began = time.perf_counter()
            publish(config, kept, source=whole if number % 2 else fewer)
            spent.append((time.perf_counter() - began) * 1000)
            print(f"published {number + 1} times", file=sys.stderr)
        del spent[:2]  # what files say is read once
        publish(config, kept)
    figure("catalogue.publish_ms", value=median(spent), unit="ms", rounds=PUBLISHINGS)


def _ask_fresh(catalogue: Path, text: str) -> float:
    began = time.perf_counter()
    with open_catalogue(catalogue) as connection:
        ask(connection, text)
    return (time.perf_counter() - began) * 1000


def _check(connection: duckdb.DuckDBPyConnection) -> None:
    """Compare the latest values with those of all readings. Raises LookupError when they differ."""
    shape = ["post_id", "quantity", "value", "event_time"]
    found = ask(connection, f"SELECT {', '.join(shape)} FROM latest WHERE value IS NOT NULL")[1]
    spent, wanted = ask(connection, latest_of("(SELECT *, false AS is_conflicting FROM observations)", "lake.footfall"))
    print(f"{wanted.height} latest values by the readings in {spent / 1000:.1f} s", file=sys.stderr)
    both = [frame.select(shape).cast({"value": pl.Float64}).sort(shape) for frame in (found, wanted)]
    if not wanted.height or not both[0].equals(both[1]):
        raise LookupError(f"latest has {found.height} values, the readings say {wanted.height}, and they differ")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m bench.warehouse", description=__doc__)
    top.add_argument("--part", choices=("questions", "analysts"), action="append", help="default: both")
    top.add_argument("--days", type=float, default=30, help="of the month")
    top.add_argument("--posts", type=int, default=400)
    top.add_argument("--root", type=Path, help="where the lake is, or is to be made and kept")
    top.add_argument("--analysts", type=int, default=20)
    top.add_argument("--seconds", type=float, default=300, help="that the analysts ask")
    return top


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code is 1 when a figure could not be measured."""
    arguments = parser().parse_args(argv)
    parts = {"questions": questions, "analysts": analysts.measure}
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        for name in arguments.part or parts:
            try:
                parts[name](root, arguments)
            except (LookupError, ValueError, RuntimeError, AssertionError, duckdb.Error) as error:
                print(f"warehouse: {name} could not be measured: {error}", file=sys.stderr)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
