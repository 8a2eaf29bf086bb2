"""Many analysts ask while the pipeline commits: `python -m bench.warehouse --part analysts`.

`catalogue.commit_p50.busy/alone`: how long a publishing of the catalogue takes, from the look at the lake to the swap,
while so many analysts ask, against before and after them in the same run; `catalogue.commit_p95_ms` of the busy ones.
The city runs as it is: a feed of the pilot's 40 messages a second with late and repeated ones, `pipelines run`,
`warehouse publish --follow`. Each analyst is a process of its own, niced, that asks every five seconds, on a catalogue
opened anew or once more on its connection. An error or a torn answer is a figure that could not be measured.

Torn: on one connection, the readings of a quarter of an hour, what their minutes and what their windows count must be
the same number, the open minutes included, because a catalogue is built from one vector of versions.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import duckdb

from bench.figures import figure
from bench.freshness import percentile
from bench.month import ENVIRON, month
from contracts.layout import Layout
from contracts.settings import SettingError
from tests.end_to_end.city import City, wait_for
from warehouse.query import open_catalogue

EVERY_S = 5.0
NICENESS = 15
LOOK_S = 0.05
QUESTIONS = (
    "SELECT * FROM latest",
    "SELECT quantity, window_start, value FROM hourly WHERE post_id = '{post}'",
    "SELECT area, window_start, avg(value) FROM value_windows JOIN lampposts USING (post_id) WHERE period_s = 900 "
    "AND quantity = 'temperature_c' AND window_start >= now() - INTERVAL 1 DAY GROUP BY ALL",
    "SELECT road_en, level_of_service, count(*) FROM traffic_since(now() - INTERVAL 1 HOUR) "
    "JOIN directions USING (post_id, direction) WHERE period_s = 300 GROUP BY ALL",
    "SELECT aqhi, count(*) FROM aqhi_since(now() - INTERVAL 3 HOUR) GROUP BY ALL",
    "SELECT * FROM gaps('{post}', 'temperature_c')",
    "SELECT post_id, distance_m FROM nearest_lampposts(22.2819, 114.1581, 10)",
    "SELECT stream, count(*) FROM observations WHERE event_time > now() - INTERVAL 10 MINUTE GROUP BY ALL",
)
SAME = """
WITH span AS (
    SELECT at_window(data_through, 5) - INTERVAL 10 MINUTE AS span_start, span_start + INTERVAL 15 MINUTE AS span_end
    FROM state
),
scalars AS (SELECT quantity FROM quantities WHERE stream IN ('weather', 'air'))
SELECT
    (
        SELECT count(*) FROM observations, span
        WHERE event_time >= span_start AND event_time < span_end AND flag IN (1, 2) AND value IS NOT NULL
    ) AS readings,
    (
        SELECT coalesce(sum(value_count), 0)::BIGINT FROM minutes, span
        WHERE window_start >= span_start AND window_start < span_end AND quantity IN (FROM scalars)
    ) AS minutes,
    (
        SELECT coalesce(sum(value_count), 0)::BIGINT FROM windows.windows, span
        WHERE window_start >= span_start AND window_start < span_end AND quantity IN (FROM scalars)
    ) AS windows
"""


def analyse(root: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Ask until the time is over; what was met: questions, milliseconds of each, errors, torn answers."""
    random, catalogue = Random(seed), Layout(root).catalogue
    met: dict[str, Any] = {"spent_ms": [], "errors": [], "torn": [], "spans": 0}
    connection: duckdb.DuckDBPyConnection | None = None
    until = time.monotonic() + seconds
    time.sleep(random.random() * EVERY_S)
    while time.monotonic() < until:
        began = time.perf_counter()
        question = random.choice(QUESTIONS)
        try:
            if connection is None or random.random() < 0.5:
                if connection is not None:
                    connection.close()
                connection = open_catalogue(catalogue)
                connection.execute("SET threads = 1")
                posts = [row[0] for row in connection.execute("SELECT post_id FROM lampposts").fetchall()]
            connection.sql(question.replace("{post}", random.choice(posts))).pl()
            met["spent_ms"].append((time.perf_counter() - began) * 1000)
            counts = connection.execute(SAME).fetchall()[0]
            met["spans"] += counts[0] > 0
            if len(set(counts)) != 1:
                met["torn"].append(counts)
        except (duckdb.Error, SettingError) as error:
            met["errors"].append(f"{question}: {error}")
        time.sleep(max(0.0, EVERY_S - (time.perf_counter() - began)))
    return met


def measure(root: Path, options: argparse.Namespace) -> None:
    """Print the figures. Raises LookupError when a question failed, an answer was torn or too little was seen."""
    month(root, options.days, options.posts)
    alone_s = max(10.0, options.seconds / 5)
    city = City(root, 0, **ENVIRON)
    samples: dict[str, list[float]] = {"alone": [], "busy": []}
    try:
        city.start("pipelines", "run")
        city.start("warehouse", "publish", "--follow")
        city.start("bench.feed", str(root), "--rate", "40", "--seconds", str(options.seconds + 2 * alone_s + 600))
        wait_for("publishings", lambda: city.progress("warehouse").get("published", 0) > 5, patience_s=300)
        _watch(city, samples["alone"], alone_s)
        begun = [_start(city, root, options.seconds, seed) for seed in range(options.analysts)]
        _watch(city, samples["busy"], options.seconds)
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in begun]
        _watch(city, samples["alone"], alone_s)
    finally:
        city.close()
    _report(samples, answers)


def _start(city: City, root: Path, seconds: float, seed: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "bench.analysts", str(root), "--seconds", str(seconds), "--seed", str(seed)]
    process = subprocess.Popen(command, env=city.environment, stdout=subprocess.PIPE)
    city.running.append(process)
    return process


def _watch(city: City, samples: list[float], seconds: float) -> None:
    """Note how long publishing took, each time that the publisher tells."""
    published, until = city.progress("warehouse")["published"], time.monotonic() + seconds
    while time.monotonic() < until:
        told = city.progress("warehouse")
        if told["published"] != published:
            published = told["published"]
            samples.append(told["publish_s"] * 1000)
        time.sleep(LOOK_S)
    print(f"{len(samples)} publishings seen", file=sys.stderr)


def _report(samples: dict[str, list[float]], answers: list[dict[str, Any]]) -> None:
    spent = [one for answer in answers for one in answer["spent_ms"]]
    for kind in ("errors", "torn"):
        if found := [one for answer in answers for one in answer[kind]]:
            raise LookupError(f"{len(found)} {kind}, the first: {found[0]}")
    if not all(samples.values()) or not spent or not sum(answer["spans"] for answer in answers):
        raise LookupError("nothing was published, asked or fed")
    busy, alone = (percentile(samples[name], 0.5) for name in ("busy", "alone"))
    figure("catalogue.commit_p50.busy/alone", value=busy, unit="ms", against=alone, publishings=len(samples["busy"]))
    figure("catalogue.commit_p95_ms", value=percentile(samples["busy"], 0.95), unit="ms", analysts=len(answers))
    figure("analysts.question_p50_ms", value=percentile(spent, 0.5), unit="ms", questions=len(spent))
    figure("analysts.question_p95_ms", value=percentile(spent, 0.95), unit="ms", questions=len(spent))


def main(argv: list[str]) -> int:
    """Be one analyst; what was met goes to standard output as JSON."""
    top = argparse.ArgumentParser(prog="python -m bench.analysts", description="One analyst of bench.warehouse.")
    top.add_argument("root", type=Path)
    top.add_argument("--seconds", type=float, required=True)
    top.add_argument("--seed", type=int, default=0)
    arguments = top.parse_args(argv)
    os.nice(NICENESS)
    print(json.dumps(analyse(arguments.root, arguments.seconds, arguments.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
