"""The law of the lake: whatever the way in which a set of messages lands, and whoever works on it, the tables are the
same. A plan is one such way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl

from bench import pipeline
from contracts.layout import Layout, Segment
from pipelines import graph, housekeeping, lake, live
from pipelines.config import from_environment, parser
from pipelines.log import chunks
from pipelines.metrics import Metrics
from pipelines.stages import Setup
from tests.pipelines.crashes import dying_after
from tests.pipelines.raw_log import Landed, land, make_root
from tests.pipelines.rich_log import CITY
from tests.pipelines.test_lake import assert_same, tables

ENGINES = ("live", "graph", "plain")
_INSTANCES = ("a", "b")
LONG_AFTER_US = 2**62


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How messages arrive and who works on them.

    `order` is a seed of their order, None: as they are; `copies` the share that lands a second time; `segments` and
    `ticks` are how many of each there are; `crashes` are pairs of a tick and the number of commits in it that the
    process survives; `engine` is one of ENGINES; `is_compacted`: after each tick all that there is is compacted.
    """

    order: int | None
    copies: float
    segments: int
    ticks: int
    crashes: tuple[tuple[int, int], ...]
    engine: str
    is_compacted: bool = False


def draw(random: Random) -> Plan:
    """Any plan."""
    ticks = random.randint(1, 8)
    return Plan(
        order=random.choice((None, random.randrange(1 << 30))),
        copies=random.choice((0.0, 0.05, 1.0)),
        segments=random.randint(1, 20),
        ticks=ticks,
        crashes=tuple((tick, random.randrange(15)) for tick in range(ticks) if random.random() < 0.4),
        engine=random.choice(ENGINES),
        is_compacted=random.random() < 0.3,
    )


class Work:
    """One worker on a data root; a new one is a process that starts."""

    def __init__(self, layout: Layout, engine: str):
        lake.forget()
        self.engine, self.setup = engine, Setup(root=layout.root, registry=layout.registry)
        if engine == "live":
            arguments = parser().parse_args(["run", "--no-release", "--data", str(layout.root)])
            self.live = live.Live(from_environment({}, arguments), Metrics(layout.raw))

    def take_up(self, segments: list[Segment]) -> None:
        """What is new; the live loop finds it by itself, the others are told."""
        if self.engine == "graph":
            graph.run(self.setup, chunks(segments))
        elif self.engine == "plain":
            pipeline.plain(self.setup, segments)
        else:
            while self.live.tick():
                pass


def arrivals(layout: Layout, landed: Sequence[Landed], plan: Plan) -> Iterator[list[Segment]]:
    """Land the messages as planned; the new segments of each tick, some of them of one instance and some of another."""
    random = Random(plan.order or 0)
    rows = list(landed)
    if plan.order is not None:
        random.shuffle(rows)
    for row in random.sample(rows, int(len(rows) * plan.copies)):
        rows.insert(random.randint(0, len(rows)), row)
    cuts = sorted(random.sample(range(1, len(rows)), min(plan.segments, len(rows)) - 1))
    parts = [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    tick_of = sorted(random.randrange(plan.ticks) for _ in parts)
    offsets = dict.fromkeys(_INSTANCES, 0)
    for tick in range(plan.ticks):
        found = []
        for part in (part for part, at in zip(parts, tick_of, strict=True) if at == tick):
            instance = random.choice(_INSTANCES)
            found.append(land(layout, part, instance, offsets[instance]))
            offsets[instance] += len(part)
        yield found


def carry_out(root: Path, landed: Sequence[Landed], plan: Plan) -> dict[str, pl.DataFrame]:
    """The tables in the end."""
    layout = make_root(root, CITY)
    work, crashes = Work(layout, plan.engine), dict(plan.crashes)
    for tick, segments in enumerate(arrivals(layout, landed, plan)):
        if not segments:
            continue
        if tick in crashes and not survives(lambda: work.take_up(segments), crashes[tick]):  # noqa: B023
            work = Work(layout, plan.engine)
        work.take_up(segments)
        if plan.is_compacted:
            housekeeping.compact_all(root, LONG_AFTER_US)
    lake.versions(root)
    return tables(root)


def survives(work: Callable[[], None], commits: int) -> bool:
    """Whether work ends before the process dies, which it does at the commit after so many."""
    with dying_after(commits):
        try:
            work()
        except (KeyboardInterrupt, RuntimeError):
            return False
    return True


def in_one_go(root: Path, landed: Sequence[Landed]) -> dict[str, pl.DataFrame]:
    """The tables of one worker who sees everything at once, in order."""
    plan = Plan(order=None, copies=0, segments=1, ticks=1, crashes=(), engine="plain")
    return carry_out(root, landed, plan)


def difference(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> str | None:
    """What differs, in words; None when the tables are equal."""
    try:
        assert_same(one, other)
    except AssertionError as error:
        return str(error)
    return None if one.keys() == other.keys() else f"tables {one.keys() ^ other.keys()}"
