"""`make bench-quality`: what the flags find of the faults that the simulated devices inject, and what they flag of good
values, over the whole way: messages, landed log, graph, catalogue. Each run takes the wettest hours of its city's year.

Recall is per quantity: `out_of_range` flag 4; `sentinel` flag 9; `spike` flag 3 or 4 for a value 6 to 20 sigma off,
where sigma is the standard deviation of the faultless signal's one-minute changes in the hour around, at least the
quantity's `noise`; `stuck` flag 3 or 4 for the wrong values of a stuck sensor from the 60th minute on, where a
faultless one would have varied within that hour. `false_flag_share` is the share flagged 3 or 4 of values that nothing
was done to. The plain names are the worst quantity's. The first hour of a run is context and is not counted.

Seeds below 1000 are for development. `docs/quality.md` says which others are spent, and keeps what the last ones gave.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import polars as pl

from bench import faulty
from bench.figures import figure
from contracts.layout import Positions
from contracts.times import US, from_us
from pipelines import graph, lake
from pipelines.log import chunks, passed
from pipelines.stages import Setup
from sensors_sim.faults import parse
from warehouse.catalogue import publish
from warehouse.config import Config
from warehouse.query import open_catalogue

FAULTS = "spike=0.004:6-20,stuck=0.01:70-180,sentinel=0.002,out_of_range=0.002"
FOUND = {"spike": (3, 4), "stuck": (3, 4), "sentinel": (9,), "out_of_range": (4,)}
_KEY = ["post_id", "stream", "seq", "quantity"]
_COUNTS = {"fault": pl.String, "quantity": pl.String, "count": pl.Int64, "flagged": pl.Int64}


def judged(seed: int, posts: int, hours: int, root: Path) -> tuple[pl.DataFrame, float]:
    """One run's counts (fault, or "none"; quantity; values; found or flagged), and its share of wet minutes."""
    start_us = faulty.wettest(seed, hours)
    log = faulty.make_log(root, faulty.scalar_posts(posts, seed), parse(FAULTS), seed, start_us, hours * 60)
    setup = Setup(root=log.layout.root, registry=log.layout.registry)
    graph.run(setup, chunks(log.segments))
    end_us = start_us + hours * 3600 * US
    Positions(offsets=passed({}, log.segments), versions=lake.versions(root), covered_us=end_us).store(
        log.layout.positions
    )
    publish(Config.build({}, root))
    with open_catalogue(log.layout.catalogue) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        values: pl.DataFrame = connection.sql(
            "SELECT post_id, stream, seq, quantity, event_time, flag FROM observations"
        ).pl()
    values = values.filter(pl.col("event_time") >= from_us(start_us + 3600 * US))
    truth = _truth(pl.DataFrame(log.truth, infer_schema_length=None))
    found = values.join(truth, on=_KEY, how="left", maintain_order="left").with_columns(
        pl.col("fault").fill_null("none")
    )
    good = {"none": (3, 4)} | FOUND
    is_found = pl.any_horizontal(
        (pl.col("fault") == fault) & pl.col("flag").is_in(list(flags)) for fault, flags in good.items()
    )
    counted = found.filter((pl.col("fault") != "stuck") | pl.col("is_counted")).group_by("fault", "quantity")
    counts = counted.agg(count=pl.len(), flagged=is_found.sum()).select(*_COUNTS).cast(_COUNTS)  # type: ignore[arg-type]
    return counts, log.wet_share


def _truth(records: pl.DataFrame) -> pl.DataFrame:
    """One row per value that faults struck, by the last of them; `is_counted` where it belongs to a recall."""
    hour = {"index_column": "time_us", "period": f"{60 * 60 * US}i", "group_by": ["post_id", "quantity", "since_us"]}
    stuck = (
        records.filter(pl.col("fault") == "stuck")
        .sort("time_us")
        .with_columns(pl.col("replaced_value", "sent_value").cast(pl.Float64))
    )
    varied = stuck.rolling(**hour).agg(  # type: ignore[arg-type]
        pl.col("seq").last(),
        pl.col("stream").last(),
        is_counted=(pl.col("replaced_value").max() > pl.col("replaced_value").min())
        & (pl.col("sent_value") != pl.col("replaced_value")).last()  # a vane stuck at 0 is right while it is calm
        & (pl.len() >= 60)  # an episode may take over from another, so its begin does not tell
        & (pl.col("quantity").last() != "rain_mm"),  # rain may stand still for weeks (WMO: no persistence test)
    )
    last = records.unique(_KEY, keep="last", maintain_order=True).select(*_KEY, "fault")
    return last.join(varied.select(*_KEY, "is_counted"), on=_KEY, how="left")


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    top.add_argument("--seed", type=int, default=1, help="of the first run; below 1000: development")
    top.add_argument("--runs", type=int, default=4, help="runs, each with the next seed")
    top.add_argument("--posts", type=int, default=150)
    top.add_argument("--hours", type=int, default=12, help="of each run, the first of them context only")
    arguments = top.parse_args(argv)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    parts, wet = [], []
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            counts, share = judged(seed, arguments.posts, arguments.hours, Path(folder))
        parts.append(counts)
        wet.append(share)
        print(f"seed {seed}: {counts['count'].sum()} values, {share:.1%} of the minutes wet", file=sys.stderr)
    totals = pl.concat(parts).group_by("fault", "quantity").sum().sort("fault", "quantity")
    return report(totals, sum(wet) / len(wet), arguments.seed, arguments.runs)


def report(totals: pl.DataFrame, wet_share: float, seed: int, runs: int) -> int:
    """Print the figures; 1 when one could not be measured."""
    said = {"seed": seed, "runs": runs}
    figure("quality.wet_share", value=wet_share, unit="1", **said)
    is_complete = True
    for fault in FOUND:
        rows = totals.filter(pl.col("fault") == fault).with_columns(share=pl.col("flagged") / pl.col("count"))
        for row in rows.iter_rows(named=True):
            figure(f"recall.{fault}/{row['quantity']}", value=row["share"], unit="1", of=row["count"], **said)
        is_complete &= not rows.is_empty()
        if not rows.is_empty():
            worst = rows.sort("share").row(0, named=True)
            figure(f"recall.{fault}", value=worst["share"], unit="1", of=worst["count"], **said)
    rows = totals.filter(pl.col("fault") == "none").with_columns(share=pl.col("flagged") / pl.col("count"))
    for row in rows.iter_rows(named=True):
        figure(f"false_flag_share/{row['quantity']}", value=row["share"], unit="1", of=row["count"], **said)
    worst = rows.sort("share", descending=True).row(0, named=True)
    figure("false_flag_share", value=worst["share"], unit="1", of=worst["count"], **said)
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
