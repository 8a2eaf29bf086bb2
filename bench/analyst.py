"""One analyst, a process of its own: `python -m bench.analyst ROOT --since 1795300000 --until 1795300300`.

Niced, it asks every five seconds, on a catalogue opened anew or once more on its connection, and looks now and then for
a torn answer: on one connection the readings of a quarter of an hour, what their minutes and what their windows count
must be the same number, the open minutes included, because a catalogue is built from one vector of versions.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import duckdb

from contracts.layout import Layout
from contracts.settings import SettingError
from warehouse.query import open_catalogue

EVERY_S = 5.0
NICENESS = 15
SHARE_LOOKED_AT = 0.25  # to look takes longer than most questions
QUESTIONS = (
    "SELECT * FROM latest",
    "SELECT quantity, window_start, value FROM hourly WHERE post_id = '{post}'",
    "SELECT area, window_start, avg(value) FROM value_windows JOIN lampposts USING (post_id) WHERE period_s = 900 "
    "AND quantity = 'temperature_c' AND window_start >= now() - INTERVAL 1 DAY GROUP BY ALL",
    "SELECT road_en, level_of_service, count(*) FROM traffic_since(now() - INTERVAL 1 HOUR) "
    "JOIN directions USING (post_id, direction) WHERE period_s = 300 GROUP BY ALL",
    "SELECT aqhi, count(*) FROM aqhi_since(now() - INTERVAL 3 HOUR) GROUP BY ALL",
    "SELECT * FROM gaps('{post}', 'temperature_c')",
    "SELECT post_id, l_night_dba FROM noise_at_night_since(now() - INTERVAL 1 DAY)",
    "SELECT post_id, distance_m FROM nearest_lampposts(22.2819, 114.1581, 10)",
    "SELECT stream, count(*) FROM observations WHERE event_time > now() - INTERVAL 10 MINUTE GROUP BY ALL",
)
SPAN = """
SELECT at_window(data_through, 5) - INTERVAL 10 MINUTE AS span_start, span_start + INTERVAL 15 MINUTE AS span_end
FROM state
"""
# the span is written into it: of a moment that a query finds out no file is left out, and it reads the month
SAME = """
WITH scalars AS (SELECT quantity FROM quantities WHERE stream IN ('weather', 'air'))
SELECT
    (
        SELECT count(*) FROM observations
        WHERE event_time >= '{0}' AND event_time < '{1}' AND flag IN (1, 2) AND value IS NOT NULL
    ) AS readings,
    (
        SELECT coalesce(sum(value_count), 0)::BIGINT FROM minutes
        WHERE window_start >= '{0}' AND window_start < '{1}' AND quantity IN (FROM scalars)
    ) AS minutes,
    (
        SELECT coalesce(sum(value_count), 0)::BIGINT FROM windows.windows
        WHERE window_start >= '{0}' AND window_start < '{1}' AND quantity IN (FROM scalars)
    ) AS windows
"""


def analyse(root: Path, since_s: float, until_s: float, seed: int) -> dict[str, Any]:
    """Ask between two moments (seconds since 1970); what was met: milliseconds of each question, errors, torn answers,
    and how many of those looked at had readings in them."""
    random, catalogue = Random(seed), Layout(root).catalogue
    met: dict[str, Any] = {"spent_ms": [], "errors": [], "torn": [], "spans": 0}
    connection: duckdb.DuckDBPyConnection | None = None
    time.sleep(max(0.0, since_s - time.time()) + random.random() * EVERY_S)
    while time.time() < until_s:
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
            if random.random() < SHARE_LOOKED_AT:
                span = connection.execute(SPAN).fetchall()[0]
                counts = connection.execute(SAME.format(*span)).fetchall()[0]
                met["spans"] += counts[0] > 0
                if len(set(counts)) != 1:
                    met["torn"].append(counts)
        except (duckdb.Error, SettingError) as error:
            met["errors"].append(f"{question}: {error}")
        time.sleep(max(0.0, EVERY_S - (time.perf_counter() - began)))
    return met


def main(argv: list[str]) -> int:
    """Be one analyst; what was met goes to standard output as JSON."""
    top = argparse.ArgumentParser(prog="python -m bench.analyst", description=__doc__)
    top.add_argument("root", type=Path)
    top.add_argument("--since", type=float, required=True, help="seconds since 1970")
    top.add_argument("--until", type=float, required=True, help="likewise")
    top.add_argument("--seed", type=int, default=0)
    arguments = top.parse_args(argv)
    os.nice(NICENESS)
    print(json.dumps(analyse(arguments.root, arguments.since, arguments.until, arguments.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
