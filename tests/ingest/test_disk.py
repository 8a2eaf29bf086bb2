"""A disk that refuses: no acknowledgement, an alarm, and everything lands once it takes commits again."""

import errno
import json
import os
import resource
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.events import events_path, read_events
from contracts.layout import Layout, open_segments, sealed_segments
from contracts.segments import recover_abandoned
from ingest import landing as landing_module
from ingest import loop as loop_module
from ingest.arrival import Arrival
from ingest.client import PIECE_BYTES
from ingest.disk import Disk
from ingest.journal import Journal
from ingest.landing import Landing, NotDurableError
from ingest.link import Link
from tests.broker import Mosquitto, free_port
from tests.ingest.processes import Running, landed, loop_in_a_thread, numbered, payloads, publish, until
from tests.small_disk import small_file_system

# a limit of the file size fails a write as a full disk does: some bytes are taken, then an error
LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))"
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def kinds(root: Path) -> list[str]:
    return [event.kind for event in read_events(events_path(Layout(root).raw, "a"))]


def health(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def big(first: int, count: int) -> list[bytes]:
    return [b"%d " % number + bytes(15_000) for number in range(first, first + count)]


def test_a_full_disk_stops_the_acks_until_there_is_room(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port, script=LIMIT).until_said("landing from") as running:
        publish(mosquitto.port, big(0, 1))
        until(lambda: landed(root).num_rows == 1)
        publish(mosquitto.port, big(1, 20))
        running.until_said("nothing is acknowledged")
        assert set(payloads(root)) < set(big(0, 21))
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
        running.until_said("the disk is back")
        until(lambda: set(payloads(root)) == set(big(0, 21)))
    assert running.process.returncode == 0
    assert kinds(root) == ["joined", "disk_failed", "disk_back"]


def test_a_disk_that_stays_full_ends_it_and_a_restart_goes_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    grace = {"LAMPLIGHT_DISK_GRACE_S": "0.5"}
    with Running(root, mosquitto.port, script=LIMIT, variables=grace).until_said("landing from") as running:
        publish(mosquitto.port, big(0, 20))
        assert running.ended() == 1
    assert "LAMPLIGHT_DISK_GRACE_S" in running.lines[-1]
    assert "LAMPLIGHT_DATA" in running.lines[-2]
    assert len(running.lines) == 3
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: set(payloads(root)) == set(big(0, 20)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    with small_file_system(tmp_path / "small", "1m") as folder:
        yield folder


def test_a_disk_without_room_alarms_and_resumes_when_there_is_some(mosquitto: Mosquitto, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700_000))
    root, port = small_disk / "data", free_port()
    sent = [b"%d " % number + bytes(4_000) for number in range(150)]
    variables = {"LAMPLIGHT_INGEST_HEALTH": str(port)}
    with Running(root, mosquitto.port, variables=variables).until_said("landing from") as running:
        assert health(port)[0] == 200
        publish(mosquitto.port, sent)
        running.until_said("No space left")
        code, content = health(port)
        assert (code, content["status"]) == (503, "failing")
        assert "the disk has refused commits" in content["why"]
        assert len(set(payloads(root))) < 150
        ballast.unlink()
        until(lambda: set(payloads(root)) == set(sent))
        until(lambda: health(port)[0] == 200)
    assert kinds(root)[-1] == "disk_back"


def test_a_folder_that_becomes_read_only_loses_nothing(mosquitto: Mosquitto, small_disk: Path) -> None:
    """As a kernel does that has met an error: files that are open stay so."""
    root = small_disk / "data"
    raw = str(Layout(root).raw)
    with Running(root, mosquitto.port).until_said("landing from") as running:
        publish(mosquitto.port, numbered(0, 10))
        until(lambda: landed(root).num_rows == 10 and not open_segments(Layout(root).raw, "a"))
        subprocess.run(["mount", "--bind", raw, raw], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", raw], check=True)
        publish(mosquitto.port, numbered(10, 10))
        running.until_said("Read-only file system")
        assert landed(root).num_rows == 10
        subprocess.run(["umount", "--lazy", raw], check=True)
        until(lambda: payloads(root) == numbered(0, 20))
    assert kinds(root) == ["joined", "disk_failed", "disk_back"]


def test_nothing_is_acknowledged_while_fsync_fails(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    fsync, settle = os.fsync, Link.settle
    is_failing = threading.Event()
    failures, settled = [], []

    def failing(descriptor: int) -> None:
        if is_failing.is_set():
            failures.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    def settling(link: Link, arrivals: Any) -> None:
        settled.append(is_failing.is_set())
        settle(link, arrivals)

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(Link, "settle", settling)
    with loop_in_a_thread(root, mosquitto.port) as loop:
        publish(mosquitto.port, numbered(0, 10))
        until(lambda: landed(root).num_rows == 10)
        is_failing.set()
        publish(mosquitto.port, numbered(10, 500))
        until(lambda: len(failures) > 3)
        # memory holds nothing meanwhile: the broker does
        assert (loop.link.inbox, loop.link.inbox_bytes, loop.link.connection) == ([], 0, None)
        is_failing.clear()
        until(lambda: landed(root).num_rows >= 510)
    assert set(settled) == {False}
    assert payloads(root) == numbered(0, 510)


def test_a_slow_disk_drops_nothing_and_memory_stays_bounded(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, append = os.fsync, Landing.append
    rows: list[int] = []
    sizes: list[int] = []

    def slow(descriptor: int) -> None:
        time.sleep(0.3)
        fsync(descriptor)

    def appended(self: Landing, arrivals: Any) -> None:
        rows.append(len(arrivals))
        sizes.append(sum(len(each.payload) for each in arrivals))
        append(self, arrivals)

    monkeypatch.setattr(loop_module, "BATCH_ROWS", 1_000)
    monkeypatch.setattr(loop_module, "BATCH_BYTES", 100_000)
    monkeypatch.setattr(Landing, "append", appended)
    sent = [b"%d " % number + bytes(500) for number in range(1_500)]
    with loop_in_a_thread(tmp_path / "data", mosquitto.port) as loop:
        monkeypatch.setattr(os, "fsync", slow)
        publish(mosquitto.port, sent)
        until(lambda: loop.landing.durable >= 1_500)
        assert loop.link.generation == 0
        monkeypatch.setattr(os, "fsync", fsync)
    assert payloads(tmp_path / "data") == sent
    # however much waits, no more is taken than a batch, and the piece that was read when it became full
    assert max(rows) <= 1_000 + 1
    assert max(sizes) <= 100_000 + PIECE_BYTES


def test_the_alarm_is_repeated_each_half_minute_and_not_at_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock_s = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock_s)
    with Landing(Layout(tmp_path), "a") as landing:
        disk = Disk(landing, Journal(tmp_path / "events.ndjson"), grace_s=100)
        with monkeypatch.context() as patch:
            patch.setattr(landing_module, "_write_whole", full)
            with pytest.raises(NotDurableError) as refused:
                landing.append(arrivals(0, 1))
            disk.failed(refused.value)
            said, given_up = [], []
            for _ in range(100):
                clock_s += 1
                assert not disk.try_again()
                said.append(len(capfd.readouterr().err.splitlines()))
                given_up.append(disk.is_given_up)
        assert given_up == [False] * 99 + [True]
        assert said == [1 if second % 30 == 0 or second == 1 else 0 for second in range(1, 101)]
        assert disk.try_again()
        assert not disk.is_given_up
    assert [event.kind for event in read_events(tmp_path / "events.ndjson")] == ["disk_failed", "disk_back"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def arrivals(first: int, count: int) -> list[Arrival]:
    return [Arrival("t", payload, 1_000 + first + index) for index, payload in enumerate(numbered(first, count))]


# what fails, at its how many-th call after a commit that was well: a commit into the open segment or into a new one,
# or the seal between
STEPS = {
    "write": (landing_module, "_write_whole", 1),
    "fsync": (os, "fsync", 1),
    "write of the end": (landing_module, "_write_whole", 2),
    "fsync of the end": (os, "fsync", 2),
    "rename": (Path, "rename", 1),
    "fsync of the folder": (landing_module, "fsync_folder", 1),
    "next segment": (os, "open", 1),
}


def commit_seal_and_commit(landing: Landing) -> None:
    landing.append(arrivals(3, 2))
    landing.seal()
    landing.append(arrivals(5, 2))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("patience", [0, 2])
def test_what_is_kept_after_a_failure_is_what_was_fsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, patience: int
) -> None:
    """`patience`: how many repairs fail too. Half of a refused write is on the disk."""
    layout = Layout(tmp_path)
    owner, name, number = STEPS[step]
    original = getattr(owner, name)
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < number:
            return original(*arguments, **options)
        if name == "_write_whole":
            os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        if name == "fsync":
            original(*arguments)  # a kernel that says so although the bytes can be read
        raise OSError(errno.EIO, "Input/output error")

    with Landing(layout, "a") as landing:
        landing.append(arrivals(0, 3))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            with pytest.raises(NotDurableError):
                commit_seal_and_commit(landing)
            durable = landing.next_offset
            assert durable == (3 if step in ("write", "fsync") else 5)
            for append_again in (landing.append, lambda _: landing.seal()):
                with pytest.raises(NotDurableError):
                    append_again(arrivals(3, 2))
            if name != "open":
                for _ in range(patience):
                    with pytest.raises(NotDurableError):
                        landing.repair()
        landing.repair()
        assert open_segments(layout.raw, "a") == []
        assert payloads(tmp_path) == numbered(0, durable)
        landing.append(arrivals(durable, 4))
    assert payloads(tmp_path) == numbered(0, durable + 4)


def test_a_file_whose_fsync_failed_is_written_anew_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes can be read and may not be on the disk: what is sealed has been written and fsynced by the recovery."""
    raw = Layout(tmp_path).raw

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    landing = Landing(Layout(tmp_path), "a")
    landing.append(arrivals(0, 3))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(NotDurableError):
            landing.append(arrivals(3, 2))
        landing.close()
    (path,) = open_segments(raw, "a")
    before = path.stat().st_ino
    assert [segment.last for segment in recover_abandoned(raw)] == [4]
    (segment,) = sealed_segments(raw, "a")
    assert segment.path(raw).stat().st_ino != before
