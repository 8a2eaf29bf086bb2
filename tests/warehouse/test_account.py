"""`python -m warehouse ledger`: the account in words and in rows, and an exit code that says whether it adds up."""

import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import duckdb
import pytest

from contracts.layout import Layout, Positions
from contracts.registry import save_registry
from pipelines import graph, lake
from pipelines.stages import Setup
from tests.pipelines import raw_log
from tests.pipelines.raw_log import POSTS, START, Landed
from tests.warehouse import command
from warehouse.catalogue import publish
from warehouse.config import Config
from warehouse.describe import described
from warehouse.query import open_catalogue


def call(root: Path, *arguments: str) -> CompletedProcess[str]:
    return command.call(root, "ledger", *arguments)


def rows(root: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(root, *arguments, "--format", "json").stdout)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred minutes of three posts. The second post's weather of minutes 10 to 14 is lost; one message is broken
    under its key, one without; one came twice."""
    layout = Layout(tmp_path_factory.mktemp("data"))
    save_registry(layout.registry, raw_log.registry_file())
    whole = raw_log.messages(7, minutes=100)
    weather = [row for row in whole if row.topic.endswith(f"{POSTS[1]}/weather")]
    lost, broken = weather[10:15], weather[20]
    landed = [row for row in whole if row not in lost and row is not broken]
    landed.append(Landed(broken.topic, broken.payload[:-1] + b"]", broken.received))
    landed.append(Landed("lamplight/v1/nowhere", b"?", START))
    landed.append(Landed(weather[0].topic, weather[0].payload, weather[0].received + timedelta(minutes=1)))
    segment = raw_log.land(layout, landed)
    graph.run(Setup(root=layout.root, registry=layout.registry), [(segment,)])
    versions = lake.versions(layout.root)
    Positions(offsets={"a": segment.last + 1}, versions=versions, covered_us=1).store(layout.positions)
    publish(Config.build({}, layout.root))
    return layout.root


def test_it_says_what_is_missing_and_that_it_adds_up(root: Path) -> None:
    done = call(root)
    assert (done.returncode, done.stderr) == (0, "")
    (total,) = rows(root, "--by", "total")
    expected = total["expected"]
    assert (total["missing"], total["quarantined"], total["dropped"], total["awaited"]) == (5, 1, 0, 5)
    assert (total["keyless"], total["duplicate"], total["conflicting"]) == (1, 1, 0)
    assert f"It adds up: {expected:,} = {expected - 6:,} + 1 + 0 + 5, in every post, stream and hour." in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [POSTS[1], "weather", "100", "94", "1", "0", "5", "5"] in lines
    assert ["quarantined", "by", "reason", "malformed", "1"] in lines
    assert ["refused", "without", "a", "key", "unknown_topic", "1"] in lines
    # clean posts are not listed
    assert not any(line[:1] == [POSTS[0]] for line in lines)


def test_rows_are_what_by_says(root: Path) -> None:
    assert [row["post_id"] for row in rows(root, "--by", "post")] == [*POSTS, None]
    hours = rows(root, "--by", "hour", "--post", POSTS[1])
    assert [row["window_start"] for row in hours] == ["2026-11-21T08:00:00Z", "2026-11-21T09:00:00Z"]
    assert [row["missing"] for row in hours] == [5, 0]
    found = list(csv.DictReader(io.StringIO(call(root, "--by", "stream", "post", "--format", "csv").stdout)))
    assert [(row["post_id"], row["stream"], row["missing"]) for row in found if row["missing"] != "0"] == [
        (POSTS[1], "weather", "5")
    ]


def test_since_leaves_out_earlier_hours(root: Path) -> None:
    (later,) = rows(root, "--since", "2026-11-21T09:30", "--by", "total")
    assert later["missing"] == 0
    assert {"window_start": "2026-11-21T09:00:00Z", **later} == rows(root, "--by", "hour")[-1]
    nothing = call(root, "--since", "2030-01-01")
    assert (nothing.returncode, "nothing has landed" in nothing.stdout) == (0, True)
    assert call(root, "--since", "1h").returncode == 0


def test_a_wrong_time_is_one_line_and_exit_code_2(root: Path) -> None:
    done = call(root, "--since", "yesterday")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--since" in done.stderr


def test_an_account_that_does_not_add_up_is_exit_code_1(root: Path, tmp_path: Path) -> None:
    broken = Layout(tmp_path).catalogue
    broken.write_bytes(Layout(root).catalogue.read_bytes())
    with duckdb.connect(str(broken)) as connection:
        connection.execute(
            "CREATE TABLE kept AS SELECT * REPLACE (accepted_count - (stream = 'air')::BIGINT AS accepted_count) "
            "FROM quality.ledger; CREATE OR REPLACE VIEW quality.ledger AS FROM main.kept"
        )
    done = call(tmp_path)
    assert done.returncode == 1
    assert "IT DOES NOT ADD UP in 6 rows" in done.stdout
    assert f"{POSTS[0]} air 2026-11-21 08:00" in done.stdout


def test_table_macros_are_listed(root: Path) -> None:
    with open_catalogue(Layout(root).catalogue) as connection:
        listed = {one.full_name: one.comment for one in described(connection)}
    names = ("ledger", "missing_ranges", "dropped_ranges", "ledger_since(since)", "ingest_events")
    assert {f"quality.{name}" for name in names} <= listed.keys()
    assert all(listed.values())
