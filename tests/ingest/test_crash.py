"""kill -9 at any point: what the broker took is in the raw log after a restart, and the log is whole."""

import signal
from pathlib import Path
from random import Random

import pytest

from contracts.layout import Layout, open_segments
from tests.broker import Mosquitto
from tests.ingest.processes import Running, landed, nothing_is_open, numbered, payloads, publish, until

# each dies by its own kill -9 at its second time there, so that one commit or segment is already done
POINTS = {
    "before the write": "at(landing, '_write_whole', before=lambda d, c: len(c) > 300)",
    "half-way through the write": "at(landing, '_write_whole', before=lambda d, c: len(c) > 300, half=True)",
    "after the write, before the fsync": "at(landing, '_write_whole', after=lambda d, c: len(c) > 300)",
    "after the fsync, before the acks": "at(PieceClient, 'ack_all', before=lambda s, mids: len(mids) > 0)",
    "after the acks": "at(PieceClient, 'ack_all', after=lambda s, mids: len(mids) > 0)",
    "after the end mark, before the seal": "at(landing, '_write_whole', after=lambda d, c: len(c) == 8)",
    "after the seal, before its fsync": "at(Path, 'rename', after=lambda s, t: t.suffix == '.arrow')",
}
SCRIPT = """
import os, signal
from pathlib import Path
from ingest import landing
from ingest.client import PieceClient
calls = 0
def at(owner, name, before=None, after=None, half=False):
    original = getattr(owner, name)
    def die_here(*arguments):
        global calls
        calls += 1
        if calls == 2:
            if half:
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    def watched(*arguments):
        if before and before(*arguments):
            die_here(*arguments)
        answer = original(*arguments)
        if after and after(*arguments):
            die_here(*arguments)
        return answer
    setattr(owner, name, watched)
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_this_point_loses_nothing(tmp_path: Path, mosquitto: Mosquitto, point: str) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port, script=SCRIPT + POINTS[point]).until_said("landing from") as running:
        publish(mosquitto.port, numbered(0, 100))
        if running.process.poll() is None:
            until(lambda: running.process.poll() is not None or landed(root).num_rows >= 100)
        publish(mosquitto.port, numbered(100, 100))
        assert running.ended() == -signal.SIGKILL
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: set(payloads(root)) == set(numbered(0, 200)))
        until(lambda: nothing_is_open(root))


def test_kills_at_any_moment_under_load_lose_nothing(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root, random = tmp_path / "data", Random(7)
    count = 0
    for _ in range(4):
        with Running(root, mosquitto.port).until_said("landing from") as running:
            for _ in range(random.randrange(1, 4)):
                publish(mosquitto.port, numbered(count, 400))
                count += 400
            running.process.kill()
            assert running.ended() == -signal.SIGKILL
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: set(payloads(root)) == set(numbered(0, count)))


def test_what_arrives_while_ingest_is_down_lands_when_it_is_back(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port).until_said("landing from") as running:
        running.process.terminate()
        assert running.ended() == 0
    publish(mosquitto.port, numbered(0, 3000))
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: landed(root).num_rows == 3000)
    assert payloads(root) == numbered(0, 3000)


def test_a_torn_tail_on_disk_is_left_out_and_offsets_go_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    script = SCRIPT + POINTS["half-way through the write"]
    with Running(root, mosquitto.port, script=script).until_said("landing from") as running:
        publish(mosquitto.port, [b"whole"])
        publish(mosquitto.port, [b"torn"])
        assert running.ended() == -signal.SIGKILL
    assert len(open_segments(Layout(root).raw, "a")) == 1
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: payloads(root)[-1:] == [b"torn"])
    assert set(payloads(root)) == {b"whole", b"torn"}
