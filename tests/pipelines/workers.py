"""Workers of tests: the stages without an engine, one or several at once on one lake."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contracts import payloads
from contracts.layout import Layout, Segment
from contracts.topics import device_topic
from pipelines import lake, stages
from pipelines.stages import Setup
from tests.pipelines.raw_log import BOOT, POSTS, START, Landed

PUT = lake.put


def weather(seed: int, minutes: int = 80) -> list[Landed]:
    """Temperatures of every post and minute with spikes, steps and still spans: what an hour's context speaks of."""
    random = Random(seed)
    landed = []
    for post in POSTS:
        value, still = 20.0, 0
        for minute in range(minutes):
            time = START + timedelta(minutes=minute)
            still = still - 1 if still else 65 * (random.random() < 0.02)
            value += 0 if still else random.choice((-0.2, -0.1, 0.1, 0.2)) + 9 * (random.random() < 0.02)
            message = payloads.Weather(
                schema_version=1,
                boot_id=BOOT,
                seq=minute,
                first_seq=0,
                time=time,
                temperature_c=round(value + 12 * (random.random() < 0.05), 1),
                wind_speed_ms=round(random.uniform(0, 5), 1),
                wind_direction_deg=float(random.randrange(360)),
            )
            topic = device_topic(post, "weather")
            landed.append(Landed(topic, payloads.encode(message), time + timedelta(seconds=1)))
    return landed


def work(setup: Setup, segments: Sequence[Segment]) -> None:
    """Bring the lake up to date with segments, as one element of the graph."""
    for name, batch in stages.decode(setup, segments).items():
        blocks = stages.unite_blocks(setup, name, [batch])
        if name in stages.MINUTES_OF:
            minutes = stages.MINUTES_OF[name].name
            stages.roll_up(setup, minutes, stages.make_minutes(setup, minutes, blocks))


class Turns:
    """Workers in threads, of which one runs at a time; at each read and write of a table chance says which goes on."""

    def __init__(self, seed: int):
        self._random = Random(seed)
        self._turn = threading.Condition()
        self._alive: list[int] = []
        self._whose = -1
        self.errors: list[BaseException] = []

    def run(self, works: Sequence[Callable[[], None]], patch: Any) -> None:
        """Run all of them to their end; raises what the first that failed raised."""
        for name, act in (("read_blocks", lake.read_blocks), ("put", lake.put)):
            patch.setattr(lake, name, self._giving_way(act))
        self._alive = list(range(len(works)))
        threads = [
            threading.Thread(target=self._live, args=(number, act), name=str(number))
            for number, act in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        with self._turn:
            self._pass_on()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _giving_way(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def giving_way(*args: Any, **kwargs: Any) -> Any:
            with self._turn:
                self._pass_on()
                self._wait(int(threading.current_thread().name))
            return act(*args, **kwargs)

        return giving_way

    def _pass_on(self) -> None:
        self._whose = self._random.choice(self._alive) if self._alive else -1
        self._turn.notify_all()

    def _wait(self, number: int) -> None:
        self._turn.wait_for(lambda: self._whose == number)

    def _live(self, number: int, act: Callable[[], None]) -> None:
        with self._turn:
            self._wait(number)
        try:
            act()
        except Exception as error:  # noqa: BLE001 (raised by run)
            self.errors.append(error)
        with self._turn:
            self._alive.remove(number)
            self._pass_on()


def in_processes(root: Path, parts: Sequence[Sequence[Segment]]) -> list[dict[str, int]]:
    """Work in so many processes, which begin at the same moment; what each has counted."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(parts)), context.Queue()
    processes = [context.Process(target=_process, args=(root, part, barrier, results)) for part in parts]
    for process in processes:
        process.start()
    found: list[dict[str, int]] = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return found


def _process(root: Path, part: Sequence[Segment], barrier: Any, results: Any) -> None:
    setup = Setup(root=root, registry=Layout(root).registry)
    barrier.wait(90)
    for segment in part:
        work(setup, [segment])
    results.put(lake.take_counts())


def as_another(act: Callable[[], None]) -> None:
    """Act with handles of its own, as another process would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake, "_HANDLES", lake._Handles())
        patch.setattr(lake, "put", PUT)
        act()
