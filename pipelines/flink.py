"""One core on a Flink cluster (law 6): the stages of the Beam graph as a PyFlink job, for when one machine is not
enough. Runs in an environment of its own (`make flink-env`), where there is no Beam of ours.

    ticks -> Tail -> Decode -> Unite -> Aggregate -> Claim
              1       any     (table, shard)           1

Flink checkpoints how far the tail has come. What the tables contain is told by `positions.json`, as on one machine,
and the tail never begins beyond that: so what was under way when something died is done again, which changes nothing.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.common import Configuration, Types
from pyflink.datastream import DataStream, KeyedProcessFunction, ProcessFunction, StreamExecutionEnvironment
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment
from pyflink.util.java_utils import to_jarray

from contracts.layout import Positions, make_folder, read_progress, try_lock, write_progress
from contracts.segments import recover_abandoned
from contracts.settings import SettingError
from contracts.times import US
from pipelines import disk, durability, stages, tidy, waves
from pipelines.chores import TIDY_S
from pipelines.cluster import home
from pipelines.finality import ANNOUNCE_S, Finality
from pipelines.log import CHUNK_ROWS, RECOVER_S, REREAD_S, TICK_ROWS, chunks, new_segments, passed, rewound, rows_new
from pipelines.packing import unpack
from pipelines.recovery import settle
from pipelines.stages import Setup
from pipelines.waves import Chunk, Dirty, Done, Rows, Wave

TICKS_PER_S = 10
LOCK_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings as values, because workers see nothing of the client's environment. `workers` is Flink's parallelism
    and the number of shards; `checkpoints` a folder that every machine sees; the rest as in Config."""

    setup: Setup
    workers: int
    checkpoints: Path
    final_grace_s: float
    rules: tidy.Rules
    checkpoint_s: int = 2


class Tail(KeyedProcessFunction):
    """Ticks -> the log's new segments, one wave at a time. It owns the lake's lock, because it decides what is read."""

    def __init__(self, job: Job):
        self.job = job

    def open(self, runtime_context: Any) -> None:
        leave_with_the_task_manager()
        self.layout = self.job.setup.layout
        make_folder(self.layout.lake)
        self._lock = _wait_for(self.layout.lake / "lock")
        self._positions, _ = settle(self.job.setup, Positions.load(self.layout.positions))
        self._emitted = runtime_context.get_state(ValueStateDescriptor("emitted", Types.PICKLED_BYTE_ARRAY()))
        self._offsets: dict[str, int] | None = None
        self._waits_for = 0
        self._recover_at = 0.0

    def close(self) -> None:
        with suppress(AttributeError):
            self._lock.close()

    def process_element(self, value: Any, ctx: Any) -> Iterator[Chunk]:
        if self._waits_for and read_progress(self.layout.progress("pipelines")).get("wave") != self._waits_for:
            return
        self._waits_for = 0
        if time.monotonic() >= self._recover_at:
            recover_abandoned(self.layout.raw)
            self._recover_at = time.monotonic() + RECOVER_S
        if self._offsets is None:
            self._offsets = self._first(self._emitted.value())
        listed_us = time.time_ns() // 1000
        segments, is_all = new_segments(self.layout.raw, self._offsets, TICK_ROWS * self.job.workers)
        if not segments:
            return
        disk.check_room(self.layout.lake)
        messages = rows_new(self._offsets, segments)
        self._offsets = passed(self._offsets, segments)
        self._emitted.update(self._offsets)
        groups = chunks(segments, min(CHUNK_ROWS, messages // self.job.workers))
        wave = Wave(
            number=time.time_ns(),
            chunks=len(groups),
            offsets=self._offsets,
            covered_us=listed_us if is_all else 0,
            messages=messages,
        )
        self._waits_for = wave.number
        for index, group in enumerate(groups):
            yield Chunk(wave=wave, index=index, segments=group)

    def _first(self, emitted: dict[str, int] | None) -> dict[str, int]:
        """Where to begin; the last minutes are read again, as after every start."""
        begin = waves.begin(self._positions.offsets, emitted or {})
        return rewound(self.layout.raw, begin, self._positions.covered_us / US - REREAD_S)


class Decode(ProcessFunction):
    """Chunks -> rows by table and shard. The costly part for one core, and any worker may do it."""

    def __init__(self, job: Job):
        self.job = job

    def open(self, runtime_context: Any) -> None:
        leave_with_the_task_manager()

    def process_element(self, value: Chunk, ctx: Any) -> Iterator[Rows]:
        yield from waves.split(value.wave, stages.decode(self.job.setup, value.segments), self.job.workers)


class Unite(ProcessFunction):
    """Rows of all of a wave's chunks -> dirty blocks, with the readings' and quarantine's blocks replaced."""

    def __init__(self, job: Job):
        self.job = job

    def open(self, runtime_context: Any) -> None:
        leave_with_the_task_manager()
        self._held: defaultdict[tuple[int, str, int], list[Rows]] = defaultdict(list)

    def process_element(self, value: Rows, ctx: Any) -> Iterator[Dirty]:
        key = (value.wave.number, value.table, value.shard)
        self._held[key].append(value)
        if len(self._held[key]) < value.wave.chunks:
            return
        batches = [unpack(rows.content) for rows in self._held.pop(key) if rows.content is not None]
        blocks: set[int] = set()
        if batches:
            blocks = stages.unite_blocks(self.job.setup, value.table, batches)
        yield from waves.dirty(value.wave, value.table, blocks, self.job.workers)


class Aggregate(ProcessFunction):
    """Dirty blocks of all sources of a table and shard -> done, with minutes, windows and hours replaced."""

    def __init__(self, job: Job):
        self.job = job

    def open(self, runtime_context: Any) -> None:
        leave_with_the_task_manager()
        self._held: defaultdict[tuple[int, str, int], list[Dirty]] = defaultdict(list)

    def process_element(self, value: Dirty, ctx: Any) -> Iterator[Done]:
        key = (value.wave.number, value.table, value.shard)
        self._held[key].append(value)
        if len(self._held[key]) < waves.SOURCES[value.table] * self.job.workers:
            return
        blocks = set[int]().union(*(part.blocks for part in self._held.pop(key)))
        if blocks and value.table in stages.WINDOWS_OF:
            touched = stages.make_minutes(self.job.setup, value.table, blocks)
            stages.roll_up(self.job.setup, value.table, touched)
        yield Done(wave=value.wave, table=value.table, shard=value.shard)


class Claim(ProcessFunction):
    """A wave whose every table and shard is done -> its positions, stored after the tables (law 4). What is final is
    announced, and compaction and vacuum have their turn, before the tail is told to go on."""

    def __init__(self, job: Job):
        self.job = job

    def open(self, runtime_context: Any) -> None:
        leave_with_the_task_manager()
        self._done: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
        self._positions: Positions | None = None
        self._finality: Finality | None = None
        self._announce_at = 0.0
        self._messages = 0
        self._tidy_at = time.monotonic() + TIDY_S

    def process_element(self, value: Done, ctx: Any) -> Iterator[None]:
        wave = value.wave
        self._done[wave.number].add((value.table, value.shard))
        if len(self._done[wave.number]) == len(waves.AGGREGATED) * self.job.workers:
            self._through(wave)
        # nothing comes after it
        return iter(())

    def _through(self, wave: Wave) -> None:
        del self._done[wave.number]
        self._claim(wave)
        self._messages += wave.messages
        figures: dict[str, int | float | str | None] = {
            "wave": wave.number,
            "messages": self._messages,
            "covered_us": wave.covered_us,
            "time_us": time.time_ns() // 1000,
        }
        write_progress(self.job.setup.layout.progress("pipelines"), figures)

    def _claim(self, wave: Wave) -> None:
        root = self.job.setup.root
        # read when the first wave is through: by then the tail has put the lake in order
        before = self._positions or Positions.load(self.job.setup.layout.positions)
        offsets = {
            name: max(before.offsets.get(name, 0), wave.offsets.get(name, 0))
            for name in before.offsets.keys() | wave.offsets.keys()
        }
        covered_us = max(before.covered_us, wave.covered_us)
        self._positions = durability.claim(root, before, offsets, covered_us)
        if wave.covered_us and time.monotonic() >= self._announce_at:
            self._finality = self._finality or Finality(self.job.setup, self.job.final_grace_s)
            if self._finality.look(covered_us):
                self._positions = durability.claim(root, self._positions, offsets, covered_us)
            if self._finality.is_caught_up:
                self._announce_at = time.monotonic() + ANNOUNCE_S
        if time.monotonic() >= self._tidy_at:
            deque(tidy.carry_out(root, tidy.plan(root, self.job.rules, time.time_ns() // 1000)), maxlen=0)
            self._positions = durability.claim(root, self._positions, offsets, covered_us)
            self._tidy_at = time.monotonic() + TIDY_S


def _wait_for(path: Path) -> Any:
    """The lake's lock; who held it may be about to end. Raises TimeoutError, and Flink tries again."""
    until = time.monotonic() + LOCK_S
    while (lock := try_lock(path)) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"another process works on {path.parent}")
        time.sleep(0.2)
    return lock


@lru_cache(maxsize=1)
def leave_with_the_task_manager() -> None:
    """End this process when the TaskManager that started it is gone: Python workers outlive a killed one, and one of
    them would keep the lake's lock for ever."""
    chain = list(_ancestors())
    managers = [at for at, (_, name) in enumerate(chain) if name == "java"]
    if not managers or managers[0] == 0:
        return
    child, manager = chain[managers[0] - 1][0], chain[managers[0]][0]

    def watch() -> None:
        while _parent(child)[0] == manager:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ancestors() -> Iterator[tuple[int, str]]:
    """(process id, name) of this process, its parent and so on; nothing where there is no /proc."""
    pid = os.getpid()
    while pid > 1:
        parent, name = _parent(pid)
        if not name:
            return
        yield pid, name
        pid = parent


def _parent(pid: int) -> tuple[int, str]:
    """(parent's id, own name) of a process; (0, "") when it is gone."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return 0, ""
    return int(tail.split()[1]), head.partition("(")[2]


def build(env: StreamExecutionEnvironment, job: Job) -> None:
    """Wire the job into an environment. Every step has a uid, so that a checkpoint finds its state again."""
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(
        f"CREATE TABLE tick (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{TICKS_PER_S}')"
    )
    tick = tables.to_data_stream(tables.sql_query("SELECT n FROM tick"))
    tail = _step(tick.key_by(lambda _: 0, key_type=Types.INT()).process(Tail(job)), "tail", 1)
    decoded = _step(_dealt(tail, lambda chunk: chunk.index).process(Decode(job)), "decode", job.workers)
    united = _step(_dealt(decoded, waves.worker_of).process(Unite(job)), "unite", job.workers)
    done = _step(_dealt(united, waves.worker_of).process(Aggregate(job)), "aggregate", job.workers)
    _step(done.process(Claim(job)), "claim", 1)


def _step(stream: DataStream, name: str, workers: int) -> DataStream:
    return stream.set_parallelism(workers).name(name).uid(name)


def _dealt(stream: DataStream, number: Any) -> DataStream:
    """Elements to the workers by a number, round and round."""
    return stream.partition_custom(lambda key, workers: key % workers, number)


def submit(job: Job, host: str, port: int, resume: Path | None) -> str:
    """Hand the job and the code that it runs to a cluster; the job's id. `resume` is a retained checkpoint.

    Raises SettingError when the cluster refuses it.
    """
    settings = {
        "execution.checkpointing.interval": f"{job.checkpoint_s} s",
        "execution.checkpointing.dir": job.checkpoints.as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(2**31 - 1),
        "restart-strategy.fixed-delay.delay": "1 s",
        # elements are few and large: none waits for others
        "python.fn-execution.bundle.size": "1",
        "python.fn-execution.bundle.time": "20",
        "table.exec.resource.default-parallelism": "1",
    }
    if resume is not None:
        settings["execution.state-recovery.path"] = resume.as_uri()
    configuration = Configuration()
    for name, value in settings.items():
        configuration.set_string(name, value)
    gateway = get_gateway().jvm
    remote = gateway.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment.createRemoteEnvironment
    # the bridge to Python is no part of a cluster's own libraries: it travels with the job, as our code does
    bridge = [str(path) for path in (home() / "opt").glob("flink-python-*.jar")]
    strings = to_jarray(gateway.java.lang.String, bridge)
    env = StreamExecutionEnvironment(remote(host, port, configuration._j_configuration, strings))
    env.set_python_executable(sys.executable)
    build(env, job)
    with tempfile.TemporaryDirectory() as folder:
        for package in ("contracts", "pipelines"):
            source = Path(__file__).parents[1] / package
            shutil.copytree(source, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        env.add_python_file(folder)
        try:
            return str(env.execute_async("lamplight").get_job_id())
        except Py4JJavaError as error:
            hint = "; --fresh leaves a checkpoint alone that is torn or of another version" if resume else ""
            raise SettingError(f"the cluster refused the job ({_root(error.java_exception)}){hint}") from error


def _root(error: Any) -> str:
    """The first line of what began a chain of Java exceptions."""
    while error.getCause() is not None:
        error = error.getCause()
    return str(error.toString()).partition("\n")[0]
