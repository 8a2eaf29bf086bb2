"""Retention removes what its rules say, by the event times of the rows, and nothing else; what it removed does not come
back, and what was made of it stays."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from contracts.layout import Layout
from contracts.retention import RULES, defaults, readings_days, rule, streams_of
from contracts.schemas import TABLES
from contracts.times import to_us
from pipelines import lake, removed, retention, tidy
from pipelines.pins import Keep
from tests.pipelines import days
from tests.pipelines.crashes import dying_after
from tests.pipelines.days import MIDNIGHT, moved, setup_of, take_up, tidied, together
from tests.pipelines.days import days as days_of
from tests.pipelines.test_lake import assert_same, tables

NOW = MIDNIGHT + timedelta(hours=10)
SHORT: dict[str, float | None] = {
    "movement_readings": 1,
    "movement_minutes": 2.3,
    "movement_windows": 3,
    "weather_readings": 2,
    "weather_minutes": None,
    "weather_windows": None,
    "status": 1.5,
    "quarantine": 3,
    "announcements": 1,
}
RULES_SHORT = tidy.Rules(days=SHORT, pins=Keep(0, 0))


def left(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The oracle: rows from the UTC day of (now - days) on, by table and stream."""
    found = {}
    for name, frame in frames.items():
        kept = []
        for stream, time in zip(days.streams(name, frame), frame[TABLES[name].time], strict=True):
            count = SHORT[rule(name, streams_of(TABLES[name])[0] if name == "quarantine" else stream).name]
            first_day = None if count is None else (NOW - timedelta(days=count)).date()
            kept.append(first_day is None or time.date() >= first_day)
        found[name] = frame.filter(pl.Series(kept, dtype=pl.Boolean))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """Everything, with nothing removed."""
    setup = setup_of(tmp_path_factory.mktemp("whole"))
    take_up(setup, [*together(days_of(5)), *LATER])
    return tables(setup.root)


# what comes after retention, and may: weather of the days whose readings are kept, some of whose movement is gone
LATER = [
    moved(row, timedelta(seconds=17)) for day in days_of(3, seed=2)[:2] for row in day if row.topic.endswith("weather")
]


def test_each_row_has_one_rule() -> None:
    for name, table in TABLES.items():
        for stream in streams_of(table):
            assert sum(name in row.tables and stream in row.streams for row in RULES) == 1, (name, stream)
            assert rule(name, stream).variable.startswith("LAMPLIGHT_RETENTION_")
    assert {row.name for row in RULES} == SHORT.keys() == defaults().keys()
    assert readings_days(defaults()) == {
        "weather": 90, "air": 90, "traffic": 30, "pedestrian": 30, "dumping": 30, "status": 90,
    }  # fmt: skip


@pytest.mark.parametrize("is_compact", [False, True])
def test_what_stays_is_what_the_rules_say_and_a_dry_run_told_it(tmp_path: Path, is_compact: bool) -> None:
    setup = setup_of(tmp_path)
    for number, landed in enumerate(days_of(5)):
        take_up(setup, landed, number * 1000)
    if is_compact:
        tidied(tmp_path, tidy.Rules(days=dict.fromkeys(SHORT), pins=Keep(0, 0)), NOW + timedelta(days=9))
    before = tables(tmp_path)
    told = [piece for piece in tidy.plan(tmp_path, RULES_SHORT, to_us(NOW)) if piece.kind == "remove"]
    assert_same(tables(tmp_path), before)
    assert not Layout(tmp_path).removed.exists()
    did = tidied(tmp_path, RULES_SHORT, NOW)
    after = tables(tmp_path)
    assert_same(after, left(before))
    for name, frame in after.items():
        assert before[name].height - frame.height == sum(piece.rows for piece in told if piece.table == name)
    assert [piece.line for piece in told] == [line for line in did if line.startswith("remove")]
    assert {"lane_flows", "footfall", "minutes", "flow_windows", "observations"} <= {piece.table for piece in told}
    # the next round finds nothing
    assert not [line for line in tidied(tmp_path, RULES_SHORT, NOW) if line.startswith("remove")]


@pytest.mark.parametrize("is_sole_owner", [True, False])
def test_what_was_removed_stays_removed_and_what_was_made_of_it_stays(
    tmp_path: Path, whole: dict[str, pl.DataFrame], is_sole_owner: bool
) -> None:
    """After retention everything lands again, with later messages: the tables are as if all had landed before."""
    setup = setup_of(tmp_path, is_sole_owner)
    landed = together(days_of(5))
    take_up(setup, landed)
    tidied(tmp_path, RULES_SHORT, NOW)
    take_up(setup, LATER, 10_000)
    take_up(setup, landed, 20_000)
    tidied(tmp_path, RULES_SHORT, NOW)
    got = tables(tmp_path)
    got["duplicates"] = whole["duplicates"]  # receipts of the second landing
    assert_same(got, left(whole) | {"duplicates": whole["duplicates"]})


@pytest.mark.parametrize("survives", range(0, 19, 6))
def test_a_crash_between_any_two_removals_heals(tmp_path: Path, survives: int) -> None:
    setup = setup_of(tmp_path)
    take_up(setup, together(days_of(4)))
    before = tables(tmp_path)
    with dying_after(survives), pytest.raises(KeyboardInterrupt):
        tidied(tmp_path, RULES_SHORT, NOW)
    # nothing but what is to go has gone, and what has gone is said
    for name, frame in tables(tmp_path).items():
        assert frame.height >= left(before)[name].height
    lake.forget()
    take_up(setup, together(days_of(4)), 5000)
    tidied(tmp_path, RULES_SHORT, NOW)
    got = tables(tmp_path)
    assert_same(got, left(before) | {"duplicates": got["duplicates"]})


def test_bounds_are_whole_days_and_never_go_back(tmp_path: Path) -> None:
    take_up(setup_of(tmp_path), days_of(1)[0])
    bounds = retention.bounds(tmp_path, SHORT, to_us(NOW))
    assert bounds["lane_flows"] == {"traffic": to_us(MIDNIGHT - timedelta(days=1))}
    assert bounds["minutes"] == {"pedestrian": to_us(MIDNIGHT - timedelta(days=2))}
    assert bounds.keys() >= {"announcements", "windows"}
    removed.note(tmp_path, {"lane_flows": {"traffic": 20}})
    removed.note(tmp_path, {"lane_flows": {"traffic": 10}, "footfall": {"pedestrian": 5}})
    assert removed.removed(tmp_path).bounds == {"lane_flows": {"traffic": 20}, "footfall": {"pedestrian": 5}}
