"""The receipts process on a real broker: posts are told what is durable, no more, and no less after a crash."""

import json
import signal
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

from contracts.layout import Layout, open_segments, read_progress
from contracts.payloads import OldestHeld, SeqRange
from contracts.topics import device_topic
from ingest import memory
from tests.broker import Mosquitto, free_port
from tests.ingest.posts import BOOT, OTHER_BOOT, POST, Landed, Listener, heartbeat, land, message
from tests.ingest.processes import Running, landed, publish, until
from tests.ingest.test_crash import POINTS, SCRIPT

READY = "telling posts"


def telling(root: Path, broker: Mosquitto, *options: str) -> Running:
    return Running(root, broker.port, "receipts", *options).until_said(READY)


def send(broker: Mosquitto, rows: list[Landed]) -> None:
    for topic, payload in rows:
        publish(broker.port, [payload], topic)


def send_in_two_commits(root: Path, broker: Mosquitto) -> None:
    """Acknowledged twice: a busy machine may land two messages at once."""
    send(broker, [message(0)])
    until(lambda: landed(root).num_rows == 1)
    send(broker, [message(1)])


def test_from_device_to_disk_and_back(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    whole = message(2)
    with Listener(mosquitto.port) as listener:
        with Running(root, mosquitto.port).until_said("landing from"), telling(root, mosquitto) as running:
            # what ends in quarantine has landed: garbage after the head, a sensor that the post does not have
            broken = (whole[0], message(1)[1][:-4] + b"\xff]]")
            send(mosquitto, [message(0), broken, message(3), message(0, stream="weather")])
            listener.until_told({BOOT: {"air": 1, "weather": 0}})
            # no head, no seq; a topic that is none
            send(mosquitto, [(whole[0], b"{}"), (device_topic(POST, "unheard"), whole[1]), ("lamplight/v1/x", b"")])
            send(mosquitto, [message(7, 7, post_id="KT1002"), whole])
            listener.until_told({BOOT: {"air": 3, "weather": 0}})
            listener.until_told({BOOT: {"air": 7}}, "KT1002")
            assert listener.never_went_down()
            running.process.terminate()
            assert running.ended() == 0
            assert "Traceback" not in "".join(running.lines)
    with Listener(mosquitto.port) as late:
        late.until_told({BOOT: {"air": 3, "weather": 0}})
        assert all(is_retained for _, _, is_retained in late.heard)


def test_at_most_one_a_second_and_only_to_posts_of_which_something_landed(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    land(root, [message(0, post_id="KT1002")])
    with Listener(mosquitto.port) as listener, telling(root, mosquitto):
        # a post that spoke before this process began is told too: the last receipt may not have reached it
        listener.until_told({BOOT: {"air": 0}}, "KT1002")
        for seq in range(30):
            land(root, [message(seq)])
            time.sleep(0.1)
        listener.until_told({BOOT: {"air": 29}})
        # a copy says that the device does not know
        before = len(listener.heard)
        land(root, [message(3)])
        until(lambda: len(listener.heard) > before)
        assert listener.boots() == {BOOT: {"air": 29}}
        times = [receipt.time for post, receipt, _ in listener.heard if post == POST]
        assert len(times) > 2
        assert all((after - earlier).total_seconds() > 0.99 for earlier, after in pairwise(times))
        assert [post for post, _, _ in listener.heard].count("KT1002") == 1


def test_a_platform_that_starts_in_the_middle_of_a_boot_starts_at_first_seq(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    root = tmp_path / "data"
    with Listener(mosquitto.port) as listener, telling(root, mosquitto):
        land(root, [message(42, 40), message(40, 40)])
        listener.until_told({BOOT: {"air": 40}})
        land(root, [message(41, 40)])
        listener.until_told({BOOT: {"air": 42}})
        assert listener.never_went_down()


def test_what_a_device_has_dropped_or_does_not_hold_is_not_waited_for(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Listener(mosquitto.port) as listener, telling(root, mosquitto):
        land(root, [message(0), message(5), message(9), message(3, boot=OTHER_BOOT)])
        listener.until_told({BOOT: {"air": 0}, OTHER_BOOT: {}})
        dropped = [SeqRange(boot_id=BOOT, stream="air", first_seq=1, last_seq=4)]
        land(root, [heartbeat(0, dropped=dropped)])
        listener.until_told({BOOT: {"air": 5, "status": 0}, OTHER_BOOT: {}})
        held = [OldestHeld(boot_id=BOOT, stream="air", seq=9), OldestHeld(boot_id=OTHER_BOOT, stream="air", seq=3)]
        land(root, [heartbeat(1, oldest_held=held)])
        listener.until_told({BOOT: {"air": 9, "status": 1}, OTHER_BOOT: {"air": 3}})
        assert listener.never_went_down()


def test_two_instances_share_a_post_and_one_comes_later(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Listener(mosquitto.port) as listener, telling(root, mosquitto):
        land(root, [message(seq) for seq in range(0, 20, 2)], "a")
        listener.until_told({BOOT: {"air": 0}})
        land(root, [message(seq) for seq in range(1, 20, 2)], "b")
        listener.until_told({BOOT: {"air": 19}})
        assert listener.never_went_down()


def test_what_a_killed_ingest_leaves_open_is_receipted_without_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Listener(mosquitto.port) as listener, telling(root, mosquitto):
        with Running(root, mosquitto.port, script=SCRIPT + POINTS["after the acks"]) as ingest:
            ingest.until_said("landing from")
            send_in_two_commits(root, mosquitto)
            assert ingest.ended() == -signal.SIGKILL
        listener.until_told({BOOT: {"air": 1}})


def test_a_seal_that_a_power_cut_undid_is_no_log_begun_anew(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port, script=SCRIPT + POINTS["after the acks"]) as ingest:
        ingest.until_said("landing from")
        send_in_two_commits(root, mosquitto)
        assert ingest.ended() == -signal.SIGKILL
    assert open_segments(Layout(root).raw, "a")
    memory.store(Layout(root), memory.Memory(offsets={"a": 2}))
    with telling(root, mosquitto) as running:
        assert not any("reading" in line for line in running.lines)
        until(lambda: not open_segments(Layout(root).raw, "a"))


def test_nobody_is_told_before_all_is_read_again(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Else a receipt would say less than the one before."""
    root = tmp_path / "data"
    for seq in range(0, 60, 3):
        land(root, [message(seq + more) for more in range(3)])
    script = "import ingest.receipts\ningest.receipts.TURN_S = 0.0"
    with Listener(mosquitto.port) as listener:
        with Running(root, mosquitto.port, "receipts", script=script):
            listener.until_told({BOOT: {"air": 59}})
        assert [receipt.boots for _, receipt, _ in listener.heard] == [{BOOT: {"air": 59}}]


@pytest.mark.parametrize("kept", ["its memory", "no memory", "a broken memory", "a memory of another log"])
def test_after_a_kill_a_receipt_never_says_less(tmp_path: Path, mosquitto: Mosquitto, kept: str) -> None:
    root = tmp_path / "data"
    with Listener(mosquitto.port) as listener:
        with telling(root, mosquitto) as running:
            land(root, [message(seq) for seq in range(50)])
            listener.until_told({BOOT: {"air": 49}})
            running.process.terminate()
            assert running.ended() == 0
        path = memory.path(Layout(root))
        if kept == "no memory":
            path.unlink()
        elif kept == "a broken memory":
            path.write_bytes(path.read_bytes()[:-3])
        elif kept == "a memory of another log":
            memory.store(Layout(root), memory.Memory(offsets={"a": 1_000_000}))
        with telling(root, mosquitto) as running:
            assert any("reading" in line for line in running.lines) == (kept != "its memory")
            # what is landed after the memory was stored is read again by the next one
            land(root, [message(seq) for seq in range(50, 60)])
            listener.until_told({BOOT: {"air": 59}})
            running.process.kill()
            running.ended()
        with telling(root, mosquitto):
            land(root, [message(60)])
            listener.until_told({BOOT: {"air": 60}})
        assert listener.never_went_down()
        assert len(listener.heard) >= 3


def test_a_broker_that_comes_back_is_told_the_newest_for_every_post_that_speaks(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    root, port = tmp_path / "data", free_port()
    with telling(root, mosquitto, "--health", str(port)) as running:
        land(root, [message(0)])
        until(lambda: read_progress(Layout(root).progress("receipts")).get("published") == 1)
        mosquitto.kill()
        for file in mosquitto.folder.glob("*.db"):
            file.unlink()
        running.until_said("lost")
        until(lambda: health(port)["status"] == "failing")
        for seq in range(1, 5):
            land(root, [message(seq), message(0, post_id="KT1002")])
        mosquitto.start()
        with Listener(mosquitto.port) as listener:
            listener.until_told({BOOT: {"air": 4}})
            listener.until_told({BOOT: {"air": 0}}, "KT1002")
        running.until_said("is back")
        until(lambda: health(port)["status"] == "ok")
        said = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert "lamplight_receipts_reconnects_total 1.0" in said
        assert "lamplight_receipts_messages_total 9.0" in said


def health(port: int) -> dict[str, object]:
    try:
        found: dict[str, object] = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/health"))
    except urllib.error.HTTPError as error:
        found = json.load(error)
    return found


def test_a_second_process_on_the_same_data_is_refused(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    with telling(root, mosquitto), Running(root, mosquitto.port, "receipts") as second:
        assert second.ended() == 2
        assert len(second.lines) == 1
        assert "already runs" in second.lines[0]
