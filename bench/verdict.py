"""What a torture has cost: every receipted message and everything that landed against what the lake holds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench.held import held, landed
from contracts.layout import Layout
from warehouse.query import open_catalogue

KEY = ["boot_id", "stream", "seq"]
# a message that its post has given a seq, and that was never to arrive or that the post has reported
GONE = ("drop", "overflow", "given_up")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`receipted` messages were told to be durable; `lost` of these, or of what landed, are neither a reading nor in
    quarantine; `doubled` are more than one reading, or a row twice in its table. `unexplained` seqs are missing in the
    ledger although the devices' truth does not know why; `faults` tells what else is not as it should be."""

    receipted: int
    lost: int
    doubled: int
    unexplained: int
    faults: tuple[str, ...]


def judge(layout: Layout, receipted: Path, truth: Path, probe: str) -> Verdict:
    """The drained platform, its catalogue published; `probe` is a post that keeps nothing."""
    lake = held(layout)
    told = _receipted(receipted)
    faults: list[str] = []

    accepted = lake.readings.filter(~pl.col("is_conflicting")).group_by(KEY).len("readings")
    refused = lake.quarantine.drop_nulls(KEY).group_by(KEY).len("rejects")
    found = told.join(accepted, on=KEY, how="left").join(refused, on=KEY, how="left")
    nowhere = found.filter(pl.col("readings").is_null() & pl.col("rejects").is_null())
    twice = found.filter(pl.col("readings") > 1)
    faults += _some("receipted and nowhere", nowhere)
    faults += _some("two readings of one message", twice)

    there = pl.concat([lake.readings.select("topic", "digest"), lake.quarantine.select("topic", "digest")]).unique()
    gone = landed(layout).join(there, on=["topic", "digest"], how="anti")
    faults += _some("landed and nowhere", gone)
    faults += [f"{lake.doubled} rows stand twice in a table"] if lake.doubled else []

    unexplained, ledger = _ledger(layout, truth, probe)
    return Verdict(
        receipted=told.height,
        lost=nowhere.height + gone.height,
        doubled=twice.height + lake.doubled,
        unexplained=unexplained,
        faults=(*faults, *ledger),
    )


def _receipted(path: Path) -> pl.DataFrame:
    """KEY of every message that a device was told to forget, once."""
    rows = [
        (line["boot_id"], line["stream"], seq)
        for line in _lines(path)
        for seq in range(line["first_seq"], line["last_seq"] + 1)
    ]
    return pl.DataFrame(rows, {"boot_id": pl.String, "stream": pl.String, "seq": pl.Int64}, orient="row").unique()


def _ledger(layout: Layout, truth: Path, probe: str) -> tuple[int, list[str]]:
    """Missing seqs that no fault explains, and whether the ledger adds up."""
    faults = []
    with open_catalogue(layout.catalogue) as catalogue:
        columns = "expected", "accepted", "quarantined", "dropped", "missing"
        sums = catalogue.execute(
            f"SELECT {', '.join(f'sum({name}_count)' for name in columns)} FROM ledger WHERE post_id <> $post",
            {"post": probe},
        ).fetchone()
        missing = catalogue.execute(
            "SELECT boot_id, stream, first_seq, last_seq FROM missing_ranges WHERE post_id <> $post", {"post": probe}
        ).fetchall()
    assert sums is not None
    expected, *parts = (int(found or 0) for found in sums)
    faults.append(
        "ledger: " + ", ".join(f"{name} {found}" for name, found in zip(columns, [expected, *parts], strict=True))
    )
    if expected != sum(parts) or not expected:
        faults.append("the ledger does not add up")
    known = {(line["boot_id"], line["stream"], line["seq"]) for line in _lines(truth) if line["fault"] in GONE}
    unknown = [
        (boot_id, stream, seq)
        for boot_id, stream, first, last in missing
        for seq in range(first, last + 1)
        if (boot_id, stream, seq) not in known
    ]
    faults += [f"missing without a reason: {each}" for each in unknown[:5]]
    return len(unknown), faults


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _some(what: str, frame: pl.DataFrame) -> list[str]:
    return [f"{what}: {row}" for row in frame.head(5).rows()]
