"""`make bench-pipeline`, the live part: how soon a message is in the catalogue, and what slows a tick.

`tick.visible_p95_s`: from the fsync of a live heartbeat's commit to the first published catalogue that shows its row,
asked with DuckDB, at 2,000 messages a second of 400 posts with 5 % repeats and 5 % late ones, `pipelines run` and
`warehouse publish --follow` as they are. Ingest seals up to 0.25 s after the fsync, which counts.

`tick.burst/before`: the same p95 while a tenth of the posts flush hours of stored readings among the live messages, at
the pilot's 40 messages a second, against the p95 before; `tick.burst_rate`: readings a second from the first of them
on disk to the claim of the last.

`lake.bytes_written/kept`: bytes of all Parquet files that the first of these runs wrote per byte that is left when all
is compacted.

`tick.day30/day1`: median tick of a lake with days of stored data and so many live commits with late data and
housekeeping, against that of a lake of an hour, both ticking in turn on the same messages.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import days as stored_days
from bench.feed import BOOT, BURST_BOOT
from bench.figures import figure
from bench.freshness import percentile
from contracts.layout import Layout, Positions
from contracts.registry import save_registry
from contracts.schemas import READING_TABLES, TABLES
from pipelines import housekeeping, lake
from sensors_sim.fleet import build
from tests.end_to_end.city import City, wait_for
from warehouse.query import open_catalogue

LOOK_S = 0.01
WARM_S = 20.0
SETTLE_S = 90.0  # after the last message, until everything must be visible


@dataclass
class Watch:
    """What the published catalogues show: when each heartbeat of a live device was first seen, microseconds."""

    layout: Layout
    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    claims: list[tuple[int, int]] = field(default_factory=list)
    sizes: dict[Path, int] = field(default_factory=dict)
    _catalogue: tuple[int, int] = (0, 0)
    _claimed: int = 0

    def look(self) -> None:
        """Ask the catalogue when it is new; note the claimed offset when that is."""
        positions = Positions.load(self.layout.positions)
        if (offset := positions.offsets.get("a", 0)) > self._claimed:
            self._claimed = offset
            self.claims.append((time.time_ns() // 1000, offset))
        try:
            status = self.layout.catalogue.stat()
        except FileNotFoundError:
            return
        if self._catalogue != (status.st_ino, status.st_mtime_ns):
            self._catalogue = (status.st_ino, status.st_mtime_ns)
            now_us = status.st_mtime_ns // 1000
            with open_catalogue(self.layout.catalogue) as connection:
                rows = connection.execute(
                    "SELECT post_id, seq FROM device_status"
                    " WHERE boot_id = ? AND event_time > now() - INTERVAL 2 MINUTE",
                    [BOOT],
                ).fetchall()
            for row in rows:
                self.seen.setdefault(row, now_us)

    def weigh(self) -> None:
        """Note the Parquet files that there are: vacuum leaves them for a quarter of an hour."""
        for name in TABLES:
            self.sizes |= {path: path.stat().st_size for path in self.layout.table(name).glob("*.parquet")}


@dataclass(frozen=True)
class Commit:
    """A line of durable.ndjson."""

    durable_us: int
    kind: str
    offset: int
    beats: list[tuple[str, int]]


def _run(root: Path, posts: int, rate: float, seconds: float, *more: str) -> tuple[Watch, list[Commit]]:
    """Feed, clean, publish and watch until everything is claimed."""
    layout = Layout(root)
    save_registry(layout.registry, build(posts, 1, detectors=False))
    city = City(root, 0)
    watch = Watch(layout)
    try:
        city.start("pipelines", "run")
        city.start("warehouse", "publish", "--follow")
        wait_for("the catalogue", layout.catalogue.exists)
        feeder = city.start("bench.feed", str(root), "--rate", str(rate), "--seconds", str(seconds), *more)
        weighed = ended = 0.0
        while True:
            watch.look()
            now = time.monotonic()
            if now > weighed + 30:
                weighed = now
                watch.weigh()
                print(f"{len(watch.seen)} heartbeats seen, {len(watch.claims)} claims", file=sys.stderr)
            if feeder.poll() is not None:
                ended = ended or now
                commits = commits_of(root)
                is_claimed = bool(watch.claims) and watch.claims[-1][1] >= commits[-1].offset
                live = (beat for commit in commits if commit.kind == "live" for beat in commit.beats)
                if (is_claimed and all(beat in watch.seen for beat in live)) or now > ended + SETTLE_S:
                    break
                time.sleep(0.2)
            time.sleep(LOOK_S)
    finally:
        city.close()
    watch.weigh()
    return watch, commits


def commits_of(root: Path) -> list[Commit]:
    lines = (root / "durable.ndjson").read_text().splitlines()
    return [
        Commit(durable_us, kind, offset, [(post, seq) for post, seq in beats])
        for durable_us, kind, offset, beats in map(json.loads, lines)
    ]


def _ages(watch: Watch, commits: list[Commit], since_us: float, until_us: float) -> list[float]:
    """Seconds from durable to visible of the live heartbeats that became durable in a span. Raises LookupError when
    one was never seen."""
    ages = []
    for commit in commits:
        if commit.kind == "live" and since_us <= commit.durable_us < until_us:
            for beat in commit.beats:
                if beat not in watch.seen:
                    raise LookupError(f"heartbeat {beat} never showed in the catalogue")
                ages.append((watch.seen[beat] - commit.durable_us) / 1e6)
    return ages


def visible(folder: Path, options: argparse.Namespace) -> None:
    """Figures at a steady load."""
    watch, commits = _run(folder, 400, options.rate, options.seconds)
    warm_us = commits[0].durable_us + WARM_S * 1e6
    ages = _ages(watch, commits, warm_us, commits[-1].durable_us)
    much: dict[str, int] = {"messages": commits[-1].offset, "samples": len(ages)}
    figure("tick.visible_p95_s", value=percentile(ages, 0.95), unit="s", **much)
    figure("tick.visible_p50_s", value=percentile(ages, 0.5), unit="s", **much)
    hours_later = time.time_ns() // 1000 + 4 * 3_600_000_000
    housekeeping.compact_all(folder, hours_later)
    watch.weigh()
    kept = 0
    for name in TABLES:
        actions = lake.open_table(folder, name).get_add_actions(flatten=True)
        kept += sum(actions["size_bytes"].to_pylist())
    figure("lake.bytes_written/kept", value=sum(watch.sizes.values()), unit="bytes", against=kept)


def burst(folder: Path, options: argparse.Namespace) -> None:
    """Figures of a burst of stored readings among live ones."""
    at_s = WARM_S + options.seconds / 2
    watch, commits = _run(
        folder,
        400,
        options.burst_live,
        at_s + options.seconds / 2 + 30,
        *("--burst-at", str(at_s), "--burst-hours", str(options.hours), "--burst-rate", str(options.burst_rate)),
    )
    old = [commit for commit in commits if commit.kind == "burst"]
    begin_us = old[0].durable_us
    end_us = next(time_us for time_us, offset in watch.claims if offset >= old[-1].offset)
    before = _ages(watch, commits, commits[0].durable_us + WARM_S * 1e6, begin_us - 3e6)
    during = _ages(watch, commits, begin_us, end_us)
    with open_catalogue(watch.layout.catalogue) as connection:
        readings = sum(
            connection.execute(f"SELECT count(*) FROM {table.name} WHERE boot_id = ?", [BURST_BOOT]).fetchall()[0][0]
            for table in READING_TABLES
        )
    seconds = (end_us - begin_us) / 1e6
    landed_s = (old[-1].durable_us - begin_us) / 1e6
    print(f"burst: {readings} readings, landed in {landed_s:.1f} s, in tables after {seconds:.1f} s", file=sys.stderr)
    p95 = [percentile(ages, 0.95) for ages in (during, before)]
    figure("tick.burst/before", value=p95[0], unit="s", against=p95[1], samples=len(during))
    figure("tick.burst_rate", value=readings / seconds, unit="readings/s", readings=readings)


def days(folder: Path, options: argparse.Namespace) -> None:
    """The figure of a lake that has grown."""
    stored_days.measure(folder, options.days, options.commits)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m bench.tick", description=__doc__)
    top.add_argument("--part", choices=("visible", "burst", "days"), action="append", help="default: all of them")
    top.add_argument("--seconds", type=float, default=300, help="of live load for each of visible and burst")
    top.add_argument("--rate", type=float, default=2000, help="messages a second while visibility is measured")
    top.add_argument("--burst-live", type=float, default=40, help="live messages a second around the burst")
    top.add_argument("--burst-rate", type=float, default=10_000, help="messages a second of the burst")
    top.add_argument("--hours", type=float, default=6, help="of stored readings in the burst")
    top.add_argument("--days", type=int, default=30, help="of stored data")
    top.add_argument("--commits", type=int, default=20_000, help="live commits, of all tables together")
    return top


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code is 1 when a figure could not be measured."""
    options = parser().parse_args(argv)
    parts = {"visible": visible, "burst": burst, "days": days}
    code = 0
    for name in options.part or parts:
        with tempfile.TemporaryDirectory() as folder:
            try:
                parts[name](Path(folder), options)
            except (LookupError, StopIteration, AssertionError) as error:
                print(f"tick: {name} could not be measured: {error}", file=sys.stderr)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
