"""What a power cut cost: the stages start again on what it left, land a few messages more and drain; then all that
was promised before the cut is asked for."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from contracts.layout import Layout, Positions, instances, open_segments, sealed_segments
from contracts.payloads import SCHEMA_VERSION, Air, encode, head
from contracts.receipts import Receipt
from contracts.registry import load_registry
from contracts.schemas import BY_ARRIVAL, TABLES
from contracts.segments import read_segment
from contracts.topics import device_topic, parse_device_topic
from demo.account import account
from tests.durability.cuts import Cut, python
from tests.durability.replay import Message, rows
from tests.end_to_end.city import ROOT, City
from warehouse.catalogue import publish
from warehouse.config import Config
from warehouse.query import open_catalogue

LONG_AGO_S = 7200.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a cut cost. `lost`: acknowledged or receipted messages that are not in the raw log, or not in the lake;
    `doubled`: rows that stand twice; `faults`: whatever else is not as it should be."""

    lost: int = 0
    doubled: int = 0
    faults: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.faults)


@dataclass
class Judge:
    """Collects what is not as it should be on what a cut left."""

    cut: Cut
    faults: list[str] = field(default_factory=list)
    lost: int = 0

    @property
    def layout(self) -> Layout:
        return Layout(self.cut.root)

    def positions(self) -> None:
        """Positions claim no more than the raw log and the tables hold, and no less than was durable before."""
        positions = Positions.load(self.layout.positions)
        for instance, offset in positions.offsets.items():
            held = max((segment.last for segment in sealed_segments(self.layout.raw, instance)), default=-1) + 1
            for path in open_segments(self.layout.raw, instance):
                held = max(held, int(path.stem) + len(rows(path.name, path.read_bytes())))
            if offset > held:
                self.faults.append(f"positions are at {offset} of {instance}, the raw log at {held}")
        for name, version in positions.versions.items():
            try:
                pl.read_delta(str(self.layout.table(name)), version=version)
            except Exception as error:  # noqa: BLE001 (whatever it is, the table does not open)
                self.faults.append(f"positions name version {version} of {name}: {type(error).__name__} {error}")
        before = self.cut.stored
        if before is not None and any(
            positions.offsets.get(name, 0) < offset for name, offset in before.offsets.items()
        ):
            self.faults.append(f"positions fell back from {before.offsets} to {positions.offsets}")

    def raw_messages(self) -> Counter[Message]:
        found: Counter[Message] = Counter()
        for instance in instances(self.layout.raw):
            for segment in sealed_segments(self.layout.raw, instance):
                table = read_segment(self.layout.raw, segment)
                found.update(zip(table["topic"].to_pylist(), table["payload"].to_pylist(), strict=True))
        return found

    def raw_log(self, fresh: Counter[Message]) -> None:
        """Whatever was acknowledged is there as often as it was, and what a receipt covers at least once."""
        found = self.raw_messages()
        missing = (self.cut.acknowledged + fresh) - found
        self.lost += missing.total()
        if missing:
            self.faults.append(f"{missing.total()} acknowledged messages are not in the raw log")
        forgotten = covered(self.cut.receipts, self.cut.received) - seqs(found)
        self.lost += len(forgotten)
        if forgotten:
            self.faults.append(f"{len(forgotten)} messages that receipts cover are not in the raw log")

    def tables(self, quiet: Layout) -> None:
        """Every table opens and is what the same raw log makes in a lake of its own."""
        for name, table in TABLES.items():
            columns = [column for column in table.schema.names if column not in BY_ARRIVAL]
            order = list(dict.fromkeys([*table.key, *columns]))
            try:
                DeltaTable(str(self.layout.table(name))).history()
                found, wanted = (
                    pl.read_delta(str(layout.table(name))).select(columns).sort(order)
                    for layout in (self.layout, quiet)
                )
            except Exception as error:  # noqa: BLE001 (whatever it is, the table does not open)
                self.faults.append(f"table {name} does not open: {type(error).__name__} {error}")
                continue
            if name not in BY_ARRIVAL and not found.equals(wanted):
                self.faults.append(
                    f"table {name} has {found.height} rows, of the same raw log {wanted.height} or others"
                )

    def ledger(self) -> None:
        """The ledger counts every message that tells its boot, stream and seq once, as accepted or quarantined."""
        publish(Config.build({}, self.cut.root))
        with open_catalogue(self.layout.catalogue) as connection:
            counted = connection.sql("SELECT sum(accepted_count + quarantined_count) FROM ledger").fetchall()[0][0]
        landed = {each[1:] for each in seqs(self.raw_messages())}
        if counted != len(landed):
            self.faults.append(f"{len(landed)} messages tell what they are, the ledger counts {counted}")


Seq = tuple[str, str, str, int]
"""Post, boot, stream, seq."""


def seqs(messages: Iterable[Message]) -> set[Seq]:
    """What messages say that they are, where they do."""
    pairs = ((parse_device_topic(topic), head(payload)) for topic, payload in messages)
    return {(place[0], told[0], place[1], told[1]) for place, told in pairs if place and told}


def covered(receipts: Mapping[str, Receipt], messages: Iterable[Message]) -> set[Seq]:
    """Those of some messages that receipts tell their posts to forget."""
    upto: dict[tuple[str, str, str], int] = {
        (post, boot, stream): seq
        for post, receipt in receipts.items()
        for boot, streams in receipt.boots.items()
        for stream, seq in streams.items()
    }
    return {each for each in seqs(messages) if each[3] <= upto.get(each[:3], -1)}


def judge(cut: Cut, folder: Path) -> Verdict:
    """Start the stages again on what a cut left, land a few messages more, drain, and ask for everything."""
    layout = Layout(cut.root)
    judge = Judge(cut)
    judge.positions()
    city, quiet = City(cut.root, 1), City(folder / f"{cut.root.name}-quiet", 1)
    fresh = _fresh(layout)
    try:
        _land(city, fresh)
        # the last minutes are read again at a start; what the tables lack must not hide behind that
        _age(layout)
        quiet.layout.root.mkdir(parents=True)
        for name in ("raw", "registry"):
            (quiet.layout.root / name).symlink_to(cut.root / name)
        with ThreadPoolExecutor(2) as pool:
            drains = [
                pool.submit(partial(city.run, "pipelines", "run", "--once")),
                pool.submit(partial(quiet.run, "pipelines", "run", "--once", "--no-release")),
            ]
            for drain in drains:
                drain.result()
    except AssertionError as error:
        return Verdict(lost=judge.lost, faults=(*judge.faults, str(error)[-600:]))
    judge.raw_log(fresh)
    judge.tables(quiet.layout)
    try:
        found = account(layout, time.time_ns() // 1000)
        judge.ledger()
    except Exception as error:  # noqa: BLE001 (a lake that cannot be read is a verdict, not an end)
        return Verdict(lost=judge.lost, faults=(*judge.faults, f"no account: {type(error).__name__} {error}"))
    return Verdict(lost=judge.lost + found.missing, doubled=found.doubled, faults=tuple(judge.faults))


def _fresh(layout: Layout) -> Counter[Message]:
    """Messages that nobody has sent yet: they must not fall behind a position that was ahead of the raw log."""
    posts = load_registry(layout.registry).valid(time.time_ns() // 1000)
    post = next(post for post in posts if "air" in post.streams)
    now = datetime.now(UTC).replace(microsecond=0)
    made = [
        Air(schema_version=SCHEMA_VERSION, boot_id="feedfacefeedface", seq=seq, first_seq=0, time=now, no2_ug_m3=20.0)
        for seq in range(5)
    ]
    return Counter((device_topic(post.post_id, "air"), encode(message)) for message in made)


def _land(city: City, messages: Counter[Message]) -> None:
    """Through ingest itself, which first recovers what the cut left."""
    lines = "".join(json.dumps({"topic": topic, "payload": payload.decode()}) + "\n" for topic, payload in messages)
    command = python("-m", "ingest", "stdin")
    done = subprocess.run(
        command, input=lines, text=True, env=city.environment, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, f"ingest does not start again: {done.stderr}"


def _age(layout: Layout) -> None:
    """Make segments look old."""
    long_ago = time.time() - LONG_AGO_S
    for path in layout.raw.rglob("*.arrow"):
        os.utime(path, (long_ago, long_ago))
