"""The view clock_skew beside what the simulated devices' clocks really did."""

from pathlib import Path

import polars as pl

from bench import faulty
from contracts.layout import Positions
from contracts.times import US, from_us
from pipelines import graph, lake
from pipelines.log import chunks
from pipelines.stages import Setup
from sensors_sim.faults import parse
from tests.warehouse.lake_samples import ask
from warehouse.catalogue import publish
from warehouse.config import Config

START_US = 1_795_240_800 * US
STEP_S = 10  # messages are received so long after they were made, at most
ROUNDING_S = 1e-6


def skews(root: Path, faults: str, hours: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The view, and the truth about status messages: post, ten minutes of sending, offset of the clock (0: right)."""
    log = faulty.make_log(root, faulty.scalar_posts(12, 5), parse(faults), 5, START_US, hours * 60)
    setup = Setup(root=root, registry=log.layout.registry)
    graph.run(setup, chunks(log.segments))
    Positions(offsets={}, versions=lake.versions(root), covered_us=START_US).store(log.layout.positions)
    publish(Config.build({}, root))
    truth = pl.DataFrame([row for row in log.truth if row["stream"] == "status"], infer_schema_length=None)
    return ask(root, "SELECT * FROM clock_skew ORDER BY ALL"), truth


def test_a_wrong_clock_is_shown_as_it_was(tmp_path: Path) -> None:
    view, truth = skews(tmp_path, "skew=0.3:40-60", 4)
    received_s = pl.col("true_time_us").cast(pl.Float64).truediv(STEP_S * US).ceil().cast(pl.Int64) * STEP_S
    window = (received_s // 600 * 600).alias("window_s")
    whole = truth.group_by("post_id", window, "offset_s").len().filter(pl.col("len") == 10)
    whole = whole.filter(pl.col("window_s") > START_US // US)  # the births come in the first
    found = view.with_columns(window_s=pl.col("window_start").dt.epoch("s")).join(whole, on=["post_id", "window_s"])
    assert found.height == whole.height > 10
    ahead = pl.col("offset_s") > 60 + STEP_S
    refused, shown = found.filter(ahead), found.filter(pl.col("offset_s") < 60)
    assert min(refused.height, shown.height) > 3
    # beyond the tolerance all of them are quarantined, and the view still says by how much they were ahead
    assert (refused["future_count"] >= 10).all()
    assert (refused["future_delay_s"] + refused["offset_s"]).is_between(-ROUNDING_S, STEP_S + ROUNDING_S).all()
    for delay in ("least_delay_s", "median_delay_s"):
        assert (shown[delay] + shown["offset_s"]).is_between(-ROUNDING_S, STEP_S + ROUNDING_S).all()
    assert ((shown["clock_offset_s"] - shown["offset_s"]).abs() < 0.1).all()
    right = view.join(truth.select("post_id").unique(), on="post_id", how="anti")
    assert right["least_delay_s"].is_between(-ROUNDING_S, STEP_S + ROUNDING_S).all()


def test_messages_that_were_held_back_are_no_skew(tmp_path: Path) -> None:
    view, truth = skews(tmp_path, "late=0.5:20-90", 4)
    assert truth.height > 100
    # nothing fresh is made after the end
    view = view.filter(pl.col("window_start") < from_us(START_US + 4 * 3600 * US))
    assert view["median_delay_s"].max() > 600  # type: ignore[operator]
    assert view["least_delay_s"].is_between(-ROUNDING_S, 60 + STEP_S).all()
    assert (view["clock_offset_s"].abs() < 0.2).all()
    assert view["future_count"].sum() == 0
