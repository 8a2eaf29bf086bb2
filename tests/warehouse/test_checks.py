"""Each check finds the lake that is broken in its way, and only that one."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts.layout import Layout
from contracts.registry import load_registry, save_registry
from contracts.schemas import READING_TABLES, TABLES
from contracts.times import to_us
from tests.pipelines.raw_log import START
from tests.warehouse import command
from tests.warehouse.lake_samples import some_rows
from tests.warehouse.real_lake import END, Change, build, changed, first, publish_as_it_is, stored, without_first
from warehouse.checks import FRESHNESS, Asked, checks, find

IS_USED = pl.col("value_count") > 0
ALL = Asked(since=datetime(2019, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    build(root)
    return root


def wrong(root: Path, asked: Asked = ALL) -> dict[str, int]:
    """Rows that break a check, by the check."""
    found = find(Layout(root).catalogue, asked)
    return {finding.check.name: finding.wrong_count for finding in found if finding.wrong_count}


def of(quantity: str) -> pl.Expr:
    return IS_USED & (pl.col("quantity") == quantity)


def with_first(*wanted: pl.Expr, **values: Any) -> Change:
    return partial(first, wanted=pl.all_horizontal(True, *wanted), **values)


def without(*wanted: pl.Expr) -> Change:
    return partial(without_first, wanted=pl.all_horizontal(True, *wanted))


def twice(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


IS_GOOD = pl.col("flag") == 1
IS_BEAT = (pl.col("kind") == "heartbeat") & ~pl.col("is_conflicting") & (pl.col("post_id") == "KT1001")
LATER = START + timedelta(hours=5)
UNCOUNTABLE = '{"air": 9200000000000000000}'
# by check: what breaks it, each in one row
BROKEN: dict[str, list[tuple[str, Change]]] = {
    "one_copy_counts": [
        ("observations", with_first(pl.col("is_conflicting"), is_conflicting=False)),
        ("footfall", with_first(~pl.col("is_conflicting"), is_conflicting=True)),
        ("device_status", with_first(~pl.col("is_conflicting"), is_conflicting=True)),
    ],
    "names_are_known": [
        ("observations", with_first(flag=7)),
        ("lane_flows", with_first(flag=0)),
        ("footfall", with_first(flag=5)),
        ("dumping_events", with_first(kind="picture")),
        ("device_status", with_first(kind="death")),
        ("duplicates", with_first(stream="sound")),
        ("quarantine", with_first(reason="bored")),
        ("flags", with_first(test="taste")),
        ("flags", with_first(flag=9)),
    ],
    "good_values_are_plausible": [
        ("observations", with_first(IS_GOOD, pl.col("quantity") == "no2_ug_m3", value=2e6)),
        ("observations", with_first(IS_GOOD, pl.col("quantity") == "rain_mm", value=None)),
        ("footfall", with_first(IS_GOOD, crossings_out_count=601)),
        ("lane_flows", with_first(IS_GOOD, vehicle_count=-1)),
        ("minutes", with_first(of("noise_dba"), value_max=131.0)),
    ],
    "posts_are_known": [
        ("lane_flows", with_first(post_id="ZZ9999")),
        ("device_status", with_first(pl.col("kind") == "heartbeat", post_id="GW0001")),
        ("observations", with_first(event_time=datetime(2019, 6, 26, tzinfo=UTC))),
        ("windows", with_first(post_id="ZZ9999")),
    ],
    "quantities_are_known": [
        ("flags", with_first(quantity="mood")),
        ("observations", with_first(pl.col("quantity") == "no2_ug_m3", stream="weather")),
    ],
    "directions_are_known": [
        ("lane_flows", with_first(direction="NW")),
        ("flow_windows", with_first(direction="NW")),
    ],
    "flags_have_minutes": [("flags", with_first(window_start=LATER))],
    # more messages than can be counted: the account says so rather than nothing
    "ledger_closes": [("device_status", with_first(IS_BEAT, previous_boot_id="b", previous_highest_seq=UNCOUNTABLE))],
    "completeness_is_arithmetic": [
        ("windows", with_first(expected_count=6)),
        ("hours", with_first(IS_USED, completeness=0.0)),
        ("flow_windows", with_first(completeness=0.01)),
    ],
    "windows_are_their_minutes": [
        ("windows", without(of("temperature_c"))),
        ("windows", with_first(of("temperature_c"), value=20.000001)),
        ("windows", with_first(of("wind_direction_deg"), value=11.0)),
        ("windows", with_first(of("noise_dba"), value=64.0)),
        ("windows", with_first(of("wind_gust_ms"), value=0.05)),
        ("windows", with_first(of("rain_mm"), value=0.1)),
        ("windows", with_first(of("crossings_in_count"), value=1.5)),
        ("windows", with_first(of("humidity_pct"), value=None)),
        ("windows", with_first(of("no2_ug_m3"), flagged_count=99)),
        ("minutes", with_first(of("wind_speed_ms"), value_min=-1.0)),
    ],
    "hours_are_their_windows": [
        ("hours", with_first(of("temperature_c"), value=20.000001)),
        ("hours", with_first(of("rain_mm"), value=0.1)),
        ("hours", without(of("noise_dba"))),
    ],
    "flow_windows_are_their_minutes": [
        ("flow_windows", without()),
        ("flow_windows", with_first(pl.col("direction") == "N", flow_veh_h=0.25)),
        ("flow_windows", with_first(pl.col("direction") == "S", release_count=1)),
    ],
}


def test_a_lake_that_the_pipeline_made_passes(healthy: Path) -> None:
    for table in (*READING_TABLES, TABLES["flags"], TABLES["quarantine"], TABLES["duplicates"]):
        assert stored(healthy, table.name).height > 0, table.name
    assert wrong(healthy) == {}


@pytest.mark.parametrize("check", BROKEN)
def test_a_check_finds_each_row_that_is_broken_in_its_way(healthy: Path, tmp_path: Path, check: str) -> None:
    root = changed(healthy, tmp_path, BROKEN[check])
    assert wrong(root)[check] == len(BROKEN[check])


def test_a_key_that_stands_twice_is_found_in_every_table(healthy: Path, tmp_path: Path) -> None:
    announced: pl.DataFrame = pl.DataFrame(some_rows(TABLES["announcements"], 2, 1))
    filled: list[tuple[str, Change]] = [("announcements", lambda _: announced)]
    root = changed(healthy, tmp_path, [*filled, *[(name, twice) for name in TABLES]])
    assert wrong(root, Asked(names=("keys_are_unique",), since=ALL.since)) == {"keys_are_unique": len(TABLES)}


def test_a_post_that_was_taken_down_is_unknown_from_then_on(healthy: Path, tmp_path: Path) -> None:
    root = changed(healthy, tmp_path)
    file = load_registry(Layout(root).registry).file
    posts = [msgspec.structs.replace(post, valid_to=START + timedelta(minutes=70)) for post in file.lampposts]
    save_registry(Layout(root).registry, msgspec.structs.replace(file, lampposts=tuple(posts)))
    publish_as_it_is(root)
    assert wrong(root).keys() == {"posts_are_known", "directions_are_known"}


def remove(root: Path, bounds: dict[str, dict[str, datetime]]) -> None:
    """Say that retention has removed what is earlier."""
    said = {table: {stream: to_us(time) for stream, time in own.items()} for table, own in bounds.items()}
    Layout(root).removed.write_text(json.dumps({"bounds": said, "done": said}))
    publish_as_it_is(root)


def test_what_retention_has_removed_is_gone(healthy: Path, tmp_path: Path) -> None:
    root = changed(healthy, tmp_path)
    later = START + timedelta(days=2)
    # weather is kept for ever, so a table that holds it may begin before
    remove(root, {"footfall": {"pedestrian": later}, "minutes": {"pedestrian": later}})
    (finding,) = [finding for finding in find(Layout(root).catalogue, ALL) if finding.wrong_count]
    assert finding.check.name == "retention_holds"
    assert [row["table_name"] for row in finding.rows] == ["footfall"]
    remove(root, {"footfall": {"pedestrian": START}})
    assert wrong(root) == {}


def test_windows_whose_minutes_were_removed_are_not_asked(healthy: Path, tmp_path: Path) -> None:
    def recent(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("window_start") >= START + timedelta(minutes=30))

    root = changed(healthy, tmp_path, [("minutes", recent), ("flow_minutes", recent), ("flags", recent)])
    assert wrong(root).keys() == {"windows_are_their_minutes", "flow_windows_are_their_minutes"}
    half = START + timedelta(minutes=30)
    streams = dict.fromkeys(("weather", "air", "pedestrian"), half)
    remove(root, {"minutes": streams, "flow_minutes": {"traffic": half}})
    assert wrong(root) == {}


def test_every_check_has_been_broken() -> None:
    assert BROKEN.keys() | {FRESHNESS, "keys_are_unique", "retention_holds"} == checks().keys()


def test_what_is_older_than_since_is_not_looked_at(healthy: Path, tmp_path: Path) -> None:
    early = pl.col("event_time") < START + timedelta(minutes=20)
    root = changed(healthy, tmp_path, [("observations", with_first(early, flag=7))])
    assert wrong(root) == {"names_are_known": 1}
    assert wrong(root, Asked(since=START + timedelta(minutes=20))) == {}
    # by default the last day of what the lake holds, however long ago that is
    assert wrong(root, Asked()) == {"names_are_known": 1}
    publish_as_it_is(root, END + timedelta(days=1))
    assert wrong(root, Asked()) == {}


def test_freshness_is_of_the_data_and_only_when_asked(healthy: Path, tmp_path: Path) -> None:
    root = changed(healthy, tmp_path)
    publish_as_it_is(root, datetime.now(UTC) - timedelta(seconds=100))
    assert wrong(root, Asked(fresh_s=50)) == {FRESHNESS: 1}
    assert wrong(root, Asked(fresh_s=5000)) == {}
    assert wrong(root, Asked()) == {}


def call(root: Path, *arguments: str) -> CompletedProcess[str]:
    return command.call(root, "check", *arguments)


def test_it_says_a_line_for_each_check_and_the_first_rows(healthy: Path, tmp_path: Path) -> None:
    done = call(healthy)
    assert (done.returncode, done.stderr) == (0, "")
    asked = checks().keys() - {FRESHNESS}
    assert [line.split() for line in done.stdout.splitlines()] == [[name, "ok"] for name in sorted(asked)]
    root = changed(healthy, tmp_path, [("windows", with_first(of("temperature_c"), value=1.0))])
    done = call(root)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = [line for line in done.stdout.splitlines() if " wrong. " in line]
    assert line.startswith("windows_are_their_minutes       1 row wrong. The windows of weather")
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(rows) == 1
    assert "quantity=temperature_c" in rows[0]
    assert "value=1.0 of_minutes=" in rows[0]
    done = call(root, "--format", "json", "windows_are_their_minutes", "ledger_closes")
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert (done.returncode, sorted(found)) == (1, ["ledger_closes", "windows_are_their_minutes"])
    assert found["ledger_closes"]["wrong"] == 0
    assert found["windows_are_their_minutes"]["rows"][0]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "--since"),
        (("taste",), "no check taste"),
        (("--fresh", "soon"), "--fresh"),
        (("--fresh", "-1"), "--fresh"),
        (("lake_is_fresh",), "--fresh"),
        (("--timeout", "0.001", "ledger_closes"), "--timeout"),
        (("--memory", "much"), "--memory"),
    ],
)
def test_a_wrong_question_is_one_line_and_exit_code_2(healthy: Path, arguments: tuple[str, ...], said: str) -> None:
    done = call(healthy, *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_a_missing_catalogue_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = call(tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "python -m warehouse publish" in done.stderr
