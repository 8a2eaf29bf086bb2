"""Traced runs of the real stages, and data roots as power cuts at any moment of them left them.

`make torture` finds the long form in `tests.durability.torture`.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from contracts.layout import Layout, Positions
from contracts.receipts import Receipt
from contracts.schemas import TABLES
from tests.broker import Mosquitto
from tests.durability.disk import Disk, Tree, lay, read
from tests.durability.events import Event, Renamed
from tests.durability.replay import Message, Replay
from tests.durability.trace import Traced, parse
from tests.end_to_end.city import ROOT, City, wait_for

POSTS = 40
STAGES = (["-m", "ingest", "run"], ["-m", "ingest", "receipts"], ["-m", "tests.durability.hurried", "run"])


@dataclass(frozen=True)
class Run:
    """What stages did to a data root: how it was before, and the events."""

    root: Path
    before: Tree
    events: list[Event]

    def replay(self) -> Replay:
        return Replay(Disk(self.root, self.before))


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def record(folder: Path, seconds: float, stages: Sequence[Sequence[str]] = STAGES, seed: int = 1) -> Run:
    """Run stages under a trace while forty faulty posts send 30 stored minutes, as fast as keeps ticks busy, and then
    live. Each of `stages` is what Python is given."""
    with Mosquitto(folder / "mosquitto") as broker, City(folder / "data", broker.port, LAMPLIGHT_TICK_S="0.2") as city:
        city.run("sensors_sim", "fleet", "--posts", str(POSTS))
        before, out = read(city.layout.root), folder / "trace"
        logs = [city.layout.table(name) / "_delta_log" for name in TABLES]
        commands = [python(*stage) for stage in stages]
        traced = Traced(commands, out, city.environment, ROOT)
        try:
            wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
            flush = ["--history", "30", "--flush-rate", "1200", "--seconds", str(seconds)]
            city.run("sensors_sim", "publish", *flush, "--faults", "default", "--seed", str(seed))
            wait_for("old log entries to be removed", lambda: any(map(_is_tidied, logs)))
        finally:
            traced.stop()
        with out.open() as lines:
            return Run(city.layout.root, before, parse(lines, city.layout.root))


def _is_tidied(log: Path) -> bool:
    return (log / "_last_checkpoint").exists() and not (log / f"{0:020d}.json").exists()


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A data root as a power cut left it, and what had happened by then: messages that ingest had received and those
    that it had acknowledged, the newest receipt of each post, and the positions that were stored before the last."""

    at: int
    is_lucky: bool
    root: Path
    acknowledged: Counter[Message]
    received: set[Message]
    receipts: dict[str, Receipt]
    stored: Positions | None


def cut(run: Run, moments: Sequence[tuple[int, Random | None]], folder: Path) -> Iterator[Cut]:
    """The cuts of a run, each (after how many events, luck), in order of time. A cut's folder is the caller's."""
    replay = run.replay()
    positions_path = Layout(run.root).positions
    stores: list[Positions] = []
    left = iter(run.events)
    done = 0
    for at, luck in sorted(moments, key=lambda moment: moment[0]):
        for event in left:
            replay.step(event)
            done += 1
            if isinstance(event, Renamed) and event.new == positions_path:
                stores.append(Positions(**json.loads(replay.disk.live_file("lake/positions.json"))))
            if done >= at:
                break
        root = lay(replay.disk.kept(luck), folder / f"{at:06d}{'-lucky' if luck else ''}")
        yield Cut(
            at=at,
            is_lucky=luck is not None,
            root=root,
            acknowledged=Counter(replay.acknowledged),
            received=set(replay.received),
            receipts=dict(replay.receipts),
            stored=stores[-2] if len(stores) > 1 else None,
        )


def moments(run: Run, rounds: int, random: Random) -> list[tuple[int, Random | None]]:
    """A random moment in each of so many equal parts of what followed the first acknowledgement, every second one with
    luck."""
    replay = run.replay()
    first = next(index for index, event in enumerate(run.events) if replay.step(event)[0])
    length = (len(run.events) - first) / rounds
    chosen = [first + 1 + int(length * (part + random.random())) for part in range(rounds)]
    return [(at, Random(random.random()) if index % 2 else None) for index, at in enumerate(chosen)]
