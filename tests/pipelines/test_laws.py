"""The laws of the pipelines, over logs with everything in them; `make torture LAWS=N` asks them of longer ones."""

from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from bench import laws as long_run
from contracts.quality import LIMITS, Limits
from contracts.registry import Registry
from contracts.retention import rule, streams_of
from contracts.schemas import (
    DUPLICATES,
    FLAGS,
    FOOTFALL,
    LANE_FLOWS,
    MINUTES,
    OBSERVATIONS,
    READING_TABLES,
    TABLES,
    Table,
)
from contracts.streams import STREAMS
from pipelines import __main__ as command
from pipelines import lake, stages
from pipelines.blocks import blocks_of
from pipelines.kernels import context as context_kernel
from pipelines.kernels.decode import Tolerance, decode_messages
from pipelines.kernels.frames import empty
from pipelines.kernels.minutes import minutes
from pipelines.kernels.rollups import flow_windows, hours, windows
from pipelines.kernels.rows import Frames
from pipelines.kernels.unite import extra_copies, message_key, unite
from pipelines.stages import Setup
from tests.pipelines import laws
from tests.pipelines.laws import ENGINES, Plan, arrivals, carry_out, difference, in_one_go
from tests.pipelines.raw_log import Landed, make_root, raw_batch, registry_file
from tests.pipelines.rich_log import CITY, rich
from tests.pipelines.test_lake import tables

Tables = dict[str, pl.DataFrame]
LOG = rich(1)
PLANS = st.builds(
    Plan,
    order=st.none() | st.integers(0, 1 << 30),
    copies=st.sampled_from([0.0, 0.05, 1.0]),
    segments=st.integers(1, 12),
    ticks=st.integers(1, 3),
    crashes=st.dictionaries(st.integers(0, 2), st.integers(0, 14), max_size=2).map(lambda found: (*found.items(),)),
    engine=st.sampled_from(ENGINES),
    is_compacted=st.booleans(),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    found = in_one_go(tmp_path_factory.mktemp("whole"), LOG)
    assert all(not frame.is_empty() for frame in found.values())
    return found


# without shrinking: a plan that breaks the law is said as it is, and shorter ones take a minute to look for
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(plan=PLANS)
def test_any_way_of_arrival_gives_the_same_tables(whole: Tables, plan: Plan) -> None:
    with TemporaryDirectory() as folder:
        assert difference(whole, carry_out(Path(folder), LOG, plan)) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_killed_and_heals(whole: Tables, tmp_path: Path, engine: str) -> None:
    crashes = ((0, 3), (1, 7), (2, 1))
    plan = Plan(order=3, copies=0.05, segments=5, ticks=3, crashes=crashes, engine=engine)
    assert difference(whole, carry_out(tmp_path, LOG, plan)) is None


def test_a_backfill_in_two_processes_gives_the_same_tables(whole: Tables, tmp_path: Path) -> None:
    layout = make_root(tmp_path, CITY)
    plan = Plan(order=5, copies=0.05, segments=9, ticks=1, crashes=(), engine="plain")
    assert list(arrivals(layout, LOG, plan))
    assert command.main(["backfill", "--processes", "2", "--data", str(tmp_path)]) == 0
    lake.forget()
    assert difference(whole, tables(tmp_path)) is None


def test_another_message_gives_other_tables(whole: Tables, tmp_path: Path) -> None:
    """What the laws compare can differ: one temperature is lost of a post whose sensor does not fail."""
    lost = next(row for row in LOG if "KT1004/weather" in row.topic)
    found = in_one_go(tmp_path, [row for row in LOG if row != lost])
    assert difference(whole, found) is not None


def test_the_long_run_says_which_plan_broke_a_law(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(laws, "carry_out", lambda *_: {})
    monkeypatch.setattr(laws, "in_one_go", lambda *_: {"windows": pl.DataFrame({"value": [1.0]})})
    assert long_run.main(["--laws", "2", "--seed", "6", "--minutes", "3"]) == 1
    said = capsys.readouterr()
    assert "python -m bench.laws --laws 1 --seed 7 --minutes 3" in said.err
    assert '"value": 2.0' in said.out


def decoded(landed: list[Landed], tolerance: Tolerance | None = None) -> Frames:
    table = pa.Table.from_batches([raw_batch(landed)])
    return decode_messages(table, Registry(registry_file(CITY)), tolerance or Tolerance())


def test_cleaning_twice_is_cleaning_once(tmp_path: Path, whole: Tables) -> None:
    layout = make_root(tmp_path, CITY)
    setup = Setup(root=layout.root, registry=layout.registry)
    rows = {name: [stages.to_batch(frame, TABLES[name])] for name, frame in decoded(LOG).items()}
    blocks = {name: stages.unite_blocks(setup, name, batches) for name, batches in rows.items()}
    dirty = blocks["observations"] | blocks["footfall"]
    stages.make_windows(setup, "minutes", stages.make_minutes(setup, "minutes", dirty))
    before = lake.versions(layout.root)
    for name, batches in rows.items():
        stages.unite_blocks(setup, name, batches)
    stages.make_windows(setup, "minutes", stages.make_minutes(setup, "minutes", dirty))
    assert lake.versions(layout.root) == before
    # what was cleaned is the context of nothing: minutes that were judged make the flags that judged them
    again = context_kernel.flags(whole["minutes"], blocks_of(whole["minutes"], MINUTES), areas())
    assert_frame_equal(again.sort(FLAGS.key), whole["flags"])


def areas() -> dict[str, str]:
    return Registry(registry_file(CITY)).areas


def test_limits_that_allow_everything_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {name: Limits(quantity=name, noise=1e9) for name in LIMITS}
    monkeypatch.setattr(context_kernel, "LIMITS", wide)
    found = in_one_go(tmp_path, LOG)
    assert found["flags"].is_empty()
    plain = minutes(found["observations"], found["footfall"])
    assert_frame_equal(found["minutes"], plain.sort(MINUTES.key), check_exact=True)
    rolled = windows(plain, 300).drop("revision").sort(MINUTES.key)
    assert_frame_equal(found["windows"], rolled.select(found["windows"].columns), check_exact=True)


@pytest.mark.parametrize("far_s", [10**9, 10**30])
def test_an_endless_tolerance_only_lets_more_in(far_s: int) -> None:
    bound, free = decoded(LOG), decoded(LOG, Tolerance(retention_s=dict.fromkeys(STREAMS, far_s), future_s=far_s))
    refused = bound["quarantine"].filter(~pl.col("reason").is_in(["too_old", "future"]))
    assert refused.height < bound["quarantine"].height
    assert_frame_equal(free["quarantine"].filter(pl.col("reason").is_in(refused["reason"].implode())), refused)
    assert set(free["quarantine"]["reason"]).isdisjoint({"too_old", "future"})
    since = pl.col("received_time") - pl.col("event_time")
    for table in READING_TABLES:
        kept_days = rule(table.name, streams_of(table)[0]).days
        assert kept_days is not None
        is_near = (since >= timedelta(seconds=-60)) & (since <= timedelta(days=kept_days))
        assert_frame_equal(free[table.name].filter(is_near), bound[table.name])


@pytest.mark.parametrize("table", [OBSERVATIONS, LANE_FLOWS, FOOTFALL])
def test_uniting_equals_an_oracle(table: Table) -> None:
    everything = decoded(LOG)[table.name]
    names, message = ", ".join(table.identity), ", ".join(message_key(table))
    wanted = asked(
        f"""SELECT * REPLACE (digest <> min(digest) OVER (PARTITION BY {message}) AS is_conflicting) FROM
        (SELECT DISTINCT ON ({names}) * FROM everything ORDER BY received_time)""",
        everything,
    )
    part = Random(2).sample(range(everything.height), everything.height // 2)
    got = unite(everything[part], everything, table)
    assert got["is_conflicting"].any()
    assert_frame_equal(in_utc(got, table), in_utc(wanted, table))


@pytest.mark.parametrize("table", [OBSERVATIONS, FOOTFALL])
def test_extra_copies_equal_an_oracle(table: Table) -> None:
    everything = decoded(LOG)[table.name]
    stream = "stream" if table.stream is None else f"'{table.stream}'"
    columns = ", ".join(DUPLICATES.schema.names).replace("stream", f"{stream} AS stream")
    wanted = asked(
        f"""SELECT DISTINCT {columns} FROM everything
        QUALIFY received_time > min(received_time) OVER (PARTITION BY {stream}, post_id, boot_id, seq, digest)""",
        everything,
    )
    got = extra_copies(empty(table), everything, table)
    assert got.height > 5
    assert_frame_equal(in_utc(got, DUPLICATES), in_utc(wanted, DUPLICATES))


def asked(query: str, everything: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect() as database:
        found = database.register("everything", everything).sql(query)
        assert found is not None
        rows: pl.DataFrame = found.pl()
        return rows


def in_utc(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows in the order of their names; DuckDB tells times in the session's zone."""
    times = pl.selectors.datetime().dt.convert_time_zone("UTC")
    return frame.select(table.schema.names).with_columns(times).sort(table.identity)


def test_an_hour_of_values_is_the_merge_of_its_minutes_and_what_the_readings_say(whole: Tables) -> None:
    start = pl.col("event_time").dt.truncate("1h").alias("window_start")
    limits = context_kernel.bounds(whole["flags"]).with_columns(is_limited=pl.lit(value=True))
    minute = pl.col("event_time").dt.truncate("1m").alias("window_start")
    value, low, high = pl.col("value"), pl.col("accepted_low"), pl.col("accepted_high")
    # the sums of directions and the growth of counters are other figures than these
    other = ["wind_direction_deg", "rain_mm"]
    used = (
        whole["observations"]
        .filter((pl.col("flag") == 1) & ~pl.col("is_conflicting") & ~pl.col("quantity").is_in(other))
        .with_columns(minute)
        .join(limits, on=["post_id", "quantity", "window_start"], how="left")
        .filter(pl.col("is_limited").is_null() | ((value >= low) & (value <= high)).fill_null(value=False))
    )
    wanted = (
        used.group_by("post_id", "quantity", start)
        .agg(value_count=value.count(), value_sum=value.sum(), value_min=value.min(), value_max=value.max())
        .cast({"value_count": pl.Int64})
        .sort("post_id", "quantity", "window_start")
    )
    got = whole["hours"].join(wanted, on=["post_id", "quantity", "window_start"], how="semi").select(wanted.columns)
    assert_frame_equal(got.sort("post_id", "quantity", "window_start"), wanted, rel_tol=1e-12)
    merged = windows(whole["minutes"], 3600).sort(MINUTES.key).select(whole["hours"].columns)
    assert_frame_equal(whole["hours"], merged, rel_tol=1e-9, abs_tol=1e-9)
    again = hours(whole["windows"].with_columns(revision=pl.lit(0))).sort(MINUTES.key)
    assert_frame_equal(whole["hours"], again.select(whole["hours"].columns), check_exact=True)


def test_an_hour_of_traffic_is_the_merge_of_its_minutes_and_what_the_lanes_say(whole: Tables) -> None:
    start = pl.col("event_time").dt.truncate("1h").alias("window_start")
    place = ["post_id", "direction", "window_start"]
    wanted = (
        whole["lane_flows"]
        .filter((pl.col("flag") == 1) & ~pl.col("is_conflicting"))
        .group_by("post_id", "direction", start)
        .agg(pl.col("vehicle_count").sum().cast(pl.Int64), lane_summaries=pl.len().cast(pl.Int64))
    )
    whole_hours = flow_windows(whole["flow_minutes"], 3600).sort(place)
    assert_frame_equal(whole_hours.select(wanted.columns), wanted.sort(place))
    counts = ["half_minutes", "vehicle_count", "speed_count", "taxi_count", "release_count", "release_speed_sum"]
    merged = flow_windows(whole["flow_windows"].select(whole["flow_minutes"].columns), 3600).sort(place)
    assert_frame_equal(whole_hours.select(*place, *counts), merged.select(*place, *counts))
