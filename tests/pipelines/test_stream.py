"""The unbounded job: what `run` makes of a log, `stream` makes of it too, whatever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import grpc
import polars as pl
import psutil
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from contracts.layout import Layout, Positions, Segment
from contracts.settings import SettingError
from pipelines import __main__ as command
from pipelines import graph, source, stages, supervision
from pipelines.config import from_environment, parser
from pipelines.graph import Part
from pipelines.log import spans
from pipelines.metrics import Metrics
from pipelines.source import MarkCoder, SegmentSource
from pipelines.stream import Stream
from pipelines.supervision import Job
from pipelines.told import TellFn, Told, folder
from tests.broker import free_port
from tests.pipelines.raw_log import Landed, land, make_root, messages
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables
from tests.pipelines.test_live import merged

PATIENCE_S = 90.0
JAR = "LAMPLIGHT_FLINK_JOB_SERVER_JAR"


def prism() -> Path:
    try:
        return supervision.find_prism(os.environ)
    except SettingError as error:
        if os.environ.get("LAMPLIGHT_CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def landed() -> list[Landed]:
    rows = dirty_log(5)
    Random(5).shuffle(rows)
    return rows[:600]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, landed: list[Landed]) -> dict[str, pl.DataFrame]:
    layout = make_root(tmp_path_factory.mktemp("batch"))
    graph.run(setup_of(layout), [(land(layout, landed),)])
    return tables(layout.root)


def until(what: Callable[[], object], words: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, words
        time.sleep(0.05)


class Streaming:
    """`pipelines stream` on a data root."""

    def __init__(self, layout: Layout, *more: str):
        self.layout = layout
        run = [sys.executable, "-m", "pipelines", "stream", "--no-release", "--data", str(layout.root), *more]
        self.process = subprocess.Popen(run)
        self.seen: dict[int, psutil.Process] = {}

    def all(self) -> list[psutil.Process]:
        """Every process below this one, that lives or ever was seen to."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            self.seen.setdefault(one.pid, one)
        return [one for one in self.seen.values() if is_alive(one)]

    def named(self, *words: str) -> psutil.Process:
        """The one process whose command line holds these words, once it is there."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = [one for one in self.all() if set(words) <= {Path(word).name for word in command_of(one)}]
            return bool(found)

        until(look, f"no process {words}")
        return found[0]

    def reaches(self, *offsets: int) -> None:
        """Wait until the stored positions of instances a, b, .. are these."""
        want = dict(zip("ab", offsets, strict=False))
        until(lambda: Positions.load(self.layout.positions).offsets == want, f"the positions never were {want}")

    def begins_to_write(self) -> None:
        """Wait for a commit that no positions claim yet."""
        until(
            lambda: version(self.layout) > Positions.load(self.layout.positions).versions.get("observations", 0),
            "no chunk was taken up",
        )

    def stop(self) -> None:
        self.all()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        assert self.all_gone()

    def all_gone(self) -> bool:
        return not any(map(is_alive, self.seen.values()))


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def version(layout: Layout) -> int:
    try:
        return DeltaTable(str(layout.table("observations"))).version()
    except TableNotFoundError:
        return 0


@contextmanager
def streaming(layout: Layout, *more: str) -> Iterator[Streaming]:
    one = Streaming(layout, *more)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(30)


def test_a_stream_whose_prism_and_driver_are_killed_equals_the_batch(
    tmp_path: Path, landed: list[Landed], batch: dict[str, pl.DataFrame]
) -> None:
    layout = make_root(tmp_path)
    with streaming(layout, "--prism", str(prism())) as stream:
        stream.named("pipelines.submission")
        until(lambda: Positions.load(layout.positions).versions, "an empty log is not claimed")
        segments = [land(layout, landed[at : at + 50], first=at) for at in range(0, 200, 50)]
        stream.reaches(200)
        land(layout, landed[200:350], first=200)
        stream.begins_to_write()
        stream.named("prism").kill()
        stream.reaches(350)
        land(layout, landed[350:450], first=350)
        merged(layout, segments)
        land(layout, landed[450:], instance="b")
        stream.begins_to_write()
        stream.named("pipelines.submission", "stream").kill()
        stream.reaches(450, 150)
        stream.stop()
    assert_same(tables(layout.root), batch)


def test_external_workers_a_killed_supervisor_and_another_runner(
    tmp_path: Path, landed: list[Landed], batch: dict[str, pl.DataFrame]
) -> None:
    layout = make_root(tmp_path)
    external = ["--environment", "EXTERNAL", "--prism", str(prism())]
    with streaming(layout, *external) as stream:
        land(layout, landed[:200])
        stream.begins_to_write()
        pool = stream.named("pipelines.workers")
        until(pool.children, "the pool has no worker")
        pool.children()[0].kill()
        stream.reaches(200)
        land(layout, landed[200:400], first=200)
        stream.begins_to_write()
        stream.all()
        stream.process.kill()
        stream.process.wait()
        until(stream.all_gone, "a killed supervisor left processes behind")
    land(layout, landed[400:], instance="b")
    port = free_port()
    server = subprocess.Popen([prism(), f"--job_port={port}", "--serve_http=false", "--log_level=error"])
    try:
        options = ["--once", "--runner=PortableRunner", "--", f"--job_endpoint=localhost:{port}"]
        with streaming(layout, *options) as stream:
            assert stream.process.wait(PATIENCE_S) == 0
        assert states(port) == [beam_job_api_pb2.JobState.CANCELLED]
    finally:
        server.kill()
        server.wait()
    assert Positions.load(layout.positions).offsets == {"a": 400, "b": 200}
    assert_same(tables(layout.root), batch)


def states(port: int) -> list[int]:
    """Of the jobs of a job server."""
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        jobs = stub.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=10).job_info
    return [job.state for job in jobs]


def test_flink_runner(tmp_path: Path, landed: list[Landed], batch: dict[str, pl.DataFrame]) -> None:
    """Beam's FlinkRunner on the small Flink that its job server brings; never run where this was written."""
    jar = os.environ.get(JAR)
    if not jar:
        pytest.skip(f"{JAR} names no job server of Beam's for Flink")
    layout = make_root(tmp_path)
    land(layout, landed)
    with streaming(layout, "--once", "--runner=FlinkRunner", "--", f"--flink_job_server_jar={jar}") as stream:
        assert stream.process.wait(2 * PATIENCE_S) == 0
    assert_same(tables(layout.root), batch)


def tell(layout: Layout, *parts: Part) -> None:
    one = TellFn(layout)
    one.start_bundle()
    for part in parts:
        one.process(part)
    one.finish_bundle()


def part(table: str, *segments: Segment, tables: int = 2) -> Part:
    return Part(spans(segments), table, tables)


def test_positions_pass_what_all_tables_contain_and_no_more(tmp_path: Path, landed: list[Landed]) -> None:
    layout = make_root(tmp_path)
    first, second, last = (land(layout, landed[at : at + 10], first=at) for at in (0, 10, 40))
    tell(layout, part("minutes", first))
    told = Told(layout)  # what was told before it began is forgotten
    assert (told.take(), told.passed(layout.raw, {})) == (False, ({}, False))
    tell(layout, part("minutes", first), part("minutes", second), part("quarantine", second))
    tell(layout, part("minutes", first))  # a bundle that ran twice
    assert (told.take(), told.passed(layout.raw, {})) == (True, ({}, False))
    tell(layout, part("quarantine", first))
    assert (told.take(), told.passed(layout.raw, {})) == (True, ({"a": 20}, False))
    tell(layout, part("quarantine", last, tables=1))
    told.take()
    assert told.passed(layout.raw, {"a": 20}) == ({"a": 50}, True)  # behind the gap
    assert not list(folder(layout).iterdir())


def test_positions_pass_into_a_segment_that_was_merged_meanwhile(tmp_path: Path, landed: list[Landed]) -> None:
    layout = make_root(tmp_path)
    segments = [land(layout, landed[at : at + 10], first=at) for at in range(0, 40, 10)]
    told = Told(layout)
    tell(layout, part("minutes", *segments[:2], tables=1))
    told.take()
    whole = merged(layout, segments)
    assert told.passed(layout.raw, {}) == ({"a": 20}, False)
    tell(layout, part("minutes", whole, tables=1))
    told.take()
    assert told.passed(layout.raw, {"a": 20}) == ({"a": 40}, True)


def test_the_source_hands_out_what_lands_and_waits_for_the_tables(tmp_path: Path, landed: list[Landed]) -> None:
    layout = make_root(tmp_path)
    reader = SegmentSource(layout, {}).create_reader(None, None)
    assert not reader.start()
    handed = []
    for at in range(source.CHUNKS_AHEAD):
        handed.append((land(layout, landed[at : at + 1], first=at),))
        assert reader.advance()
        assert reader.get_current() == handed[at]
        assert not reader.advance()
    more = [land(layout, landed[at : at + 1], first=at) for at in range(len(handed), len(handed) + 2)]
    assert not reader.advance()
    Positions(offsets={"a": 1}, versions={}, covered_us=0).store(layout.positions)
    assert reader.advance()
    assert reader.get_current() == tuple(more)
    coder, mark = MarkCoder(), reader.get_checkpoint_mark()
    again = SegmentSource(layout, {}).create_reader(None, coder.decode(coder.encode(mark)))
    assert not again.start()
    assert SegmentSource(layout, {"a": 5}).create_reader(None, None).start()


def test_a_chunk_without_rows_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_root(tmp_path)
    segment = land(layout, messages(1, minutes=1)[:1])
    monkeypatch.setattr(stages, "decode_raw", lambda *_: {})
    ((name, (found, batch)),) = graph.DecodeFn(setup_of(layout)).process((segment,))
    assert (found, batch.num_rows) == (Part((("a", 0, 1),), name, 1), 0)
    ((name, united),) = graph.UniteFn(setup_of(layout)).process((name, [(found, batch)]))
    ((name, dirty),) = graph.MinutesFn(setup_of(layout)).process((name, [united]))
    ((name, dirty),) = graph.RollUpFn(setup_of(layout)).process((name, dirty))
    assert list(graph.HoursFn(setup_of(layout)).process((name, dirty))) == [found]


def test_what_is_read_again_is_written_beside_the_workers(
    tmp_path: Path, landed: list[Landed], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = make_root(tmp_path)
    land(layout, landed[:50])
    Positions(offsets={"a": 50}, versions={}, covered_us=0).store(layout.positions)
    engine = supervision.Engine(runner="PrismRunner", prism=None, is_external=False, arguments=(), beam=())
    arguments = parser().parse_args(["stream", "--no-release", "--data", str(tmp_path)])
    config = from_environment({}, arguments)
    stream = Stream(engine, (tmp_path / "lock").open("ab"), config, Metrics(layout.raw))
    setups: list[stages.Setup] = []

    def run(setup: stages.Setup, _: object) -> dict[str, int]:
        setups.append(setup)
        return {}

    monkeypatch.setattr(graph, "run", run)
    assert stream._read_again()
    assert [setup.is_sole_owner for setup in setups] == [False]
    assert not stream._read_again()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prism", "/nowhere/prism"], "there is no Prism at /nowhere/prism: `go install .*/prism@v2.*make prism"),
        (["--runner", "DirectRunner"], "no portable runner"),
        (["--runner", "PortableRunner"], "add `-- --job_endpoint=HOST:PORT`"),
    ],
)
def test_what_cannot_run_is_said_in_a_line(tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        command.main(["stream", "--data", str(tmp_path), *more])


def test_a_job_that_is_refused_ends_the_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with streaming(make_root(tmp_path), "--prism", str(prism()), "--", "--job_server_timeout=soon") as stream:
        assert stream.process.wait(PATIENCE_S) == 2
    assert "the job was refused: " in capfd.readouterr().err


def test_a_job_that_keeps_dying_is_started_ever_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = supervision.Engine(runner="PrismRunner", prism=None, is_external=False, arguments=(), beam=())
    job, starts, clock = Job(engine, make_root(tmp_path), (tmp_path / "lock").open("ab")), list[float](), [0.0]

    def start() -> None:
        starts.append(clock[0])
        job._spawn("prism", ["/bin/false"])
        job.running["prism"].wait()

    monkeypatch.setattr(job, "_start", start)
    monkeypatch.setattr(supervision, "monotonic", lambda: clock[0])
    while clock[0] < 200:
        job.watch()
        clock[0] += 1
    pauses = [after - before for before, after in pairwise(starts)]
    assert pauses[:6] == [1 + 1, 2 + 1, 4 + 1, 8 + 1, 16 + 1, 30 + 1]
    assert set(pauses[6:]) == {31}
    job.went_on()
    while len(starts) < len(pauses) + 3:
        job.watch()
        clock[0] += 1
    assert starts[-1] - starts[-2] == 1 + 1
