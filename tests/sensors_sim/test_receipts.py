"""From the device's side: what no receipt covers is kept and sent again, over kills and restarts; the rest is
forgotten, given up, dropped or reported, and the files say which."""

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contracts.payloads import Birth, Heartbeat
from contracts.registry import save_registry
from sensors_sim.fleet import build
from sensors_sim.journal import Journal
from sensors_sim.recovery import recover
from tests.broker import Mosquitto
from tests.sensors_sim.listener import Listener, Simulator, wait_for
from tests.sensors_sim.platform import Platform
from tests.sensors_sim.test_publish import bodies, sequences

POSTS = 8


@pytest.fixture
def simulator(tmp_path: Path, mosquitto: Mosquitto) -> Simulator:
    made = Simulator(tmp_path / "var", mosquitto.port)
    save_registry(tmp_path / "var" / "registry" / "lampposts.json", build(POSTS, 1, False))
    return made


def covered(path: Path) -> Counter[tuple[str, str, str, int]]:
    """(post, boot, stream, seq) of everything that the file says is receipted."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return Counter(
        (line["post_id"], line["boot_id"], line["stream"], seq)
        for line in lines
        for seq in range(line["first_seq"], line["last_seq"] + 1)
    )


def made(listener: Listener) -> set[tuple[str, str, str, int]]:
    return {(post_id, body.boot_id, stream, body.seq) for post_id, stream, body in bodies(listener)}


def held(root: Path) -> set[tuple[str, str, str, int]]:
    """What a next run would find on the disk."""
    folder = root / "devices"
    return {
        (post_id, boot_id, stream, seq)
        for post_id, boots in recover(folder, Journal(folder / "journal")).old.items()
        for boot_id, shelves in boots.items()
        for stream, shelf in shelves.items()
        for seq in (*shelf.stored, *shelf.live)
    }


def test_a_receipt_ends_the_holding_and_a_missing_one_does_not(simulator: Simulator, mosquitto: Mosquitto) -> None:
    file = simulator.root / "receipted.ndjson"
    with Platform(mosquitto.port) as platform:
        arguments = ("publish", "--history", "3", "--seconds", "2", "--confirm", "--receipted", str(file))
        code, _, err = simulator.run(*arguments)
        assert code == 0, err
        progress = simulator.progress()
        assert (progress["held"], progress["receipted"]) == (0, progress["produced"])
        assert covered(file) == dict.fromkeys(made(platform), 1), "each once"
        assert not held(simulator.root)
        platform.is_silent = True
        first = made(platform)
        code, _, err = simulator.run("publish", "--seconds", "2")
        assert code == 0, err
        wait_for(lambda: len(made(platform)) == len(first) + simulator.progress()["produced"])
        assert held(simulator.root) == made(platform) - first
        assert simulator.progress()["resent"] == 0


def test_new_messages_say_that_nothing_old_is_held(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Platform(mosquitto.port) as platform:
        code, _, err = simulator.run("publish", "--rate", "40", "--seconds", "6")
        assert code == 0, err
        newest: dict[tuple[str, str], Any] = {}
        for post_id, stream, body in bodies(platform):
            known = newest.setdefault((post_id, stream), body)
            newest[post_id, stream] = max(known, body, key=lambda item: item.seq)
        long = [body for body in newest.values() if body.seq > 3]
        assert long
        assert all(body.first_seq > 0 for body in long)


def test_a_killed_fleet_sends_again_what_no_receipt_covers(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Listener(mosquitto.port) as listener:
        process = simulator.start("publish", "--rate", "150", "--faults", "drop=0.05")
        wait_for(lambda: len(listener.heard) > 150)
        mosquitto.stop()
        stopped_at = simulator.progress()["produced"]
        wait_for(lambda: simulator.progress()["produced"] > stopped_at + 300)
        time.sleep(0.4)  # what is made since is in the journal only
        process.kill()
        process.communicate()
        kept = held(simulator.root)
        old = {boot_id for _, boot_id, _, _ in kept}
        before = {item for item in listener.payloads() if b'"will"' not in item[1]}
        assert len(old) == POSTS
        mosquitto.start()
        process = simulator.start("publish", "--posts", str(POSTS))
        wait_for(lambda: kept <= made(listener))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        # each key has the same bytes, before and after
        keys = Counter((post_id, stream, body.boot_id, body.seq) for post_id, stream, body in bodies(listener))
        assert max(keys.values()) == 1
        assert before <= listener.payloads()
        dropped = {(r["post_id"], r["boot_id"], r["stream"], r["seq"]) for r in simulator.truth()}
        assert dropped
        given: dict[tuple[str, str, str], int] = {}
        for post_id, boot_id, stream, seq in kept | dropped:
            given[post_id, boot_id, stream] = max(seq, given.get((post_id, boot_id, stream), 0))
        births = [(post_id, body) for post_id, _, body in bodies(listener) if isinstance(body, Birth) and body.previous]
        assert len(births) == POSTS
        for post_id, body in births:
            assert body.previous is not None
            boot_id = body.previous.boot_id
            assert body.previous.highest_seq == {
                stream: seq for (post, boot, stream), seq in given.items() if (post, boot) == (post_id, boot_id)
            }


def test_what_is_lost_on_the_wire_heals_and_what_was_never_held_does_not(
    simulator: Simulator, mosquitto: Mosquitto
) -> None:
    file = simulator.root / "receipted.ndjson"
    arguments = ("--rate", "60", "--seconds", "3", "--faults", "wire=0.1,drop=0.1", "--resend-after", "0.5")
    with Platform(mosquitto.port) as platform:
        code, _, err = simulator.run("publish", *arguments, "--confirm", "--receipted", str(file))
        assert code == 0, err
        truth = {(r["post_id"], r["boot_id"], r["stream"], r["seq"]): r["fault"] for r in simulator.truth()}
        assert Counter(truth.values()).keys() == {"wire", "drop"}
        wire = {key for key, fault in truth.items() if fault == "wire"}
        assert wire <= made(platform)
        assert not made(platform) & (truth.keys() - wire)
        assert set(covered(file)) == made(platform)
        assert simulator.progress()["given_up"] == 0


def test_a_message_that_the_platform_passes_over_is_given_up_and_told(
    simulator: Simulator, mosquitto: Mosquitto
) -> None:
    post_id = build(POSTS, 1, False).lampposts[0].post_id
    with Platform(mosquitto.port, ignored={(post_id, "status", 1)}) as platform:
        arguments = ("--rate", "60", "--seconds", "4", "--resend-after", "0.3", "--give-up", "3", "--truth")
        truth = simulator.root / "truth.ndjson"
        code, _, err = simulator.run("publish", *arguments, str(truth), "--confirm")
        assert code == 0, err
        assert simulator.progress()["given_up"] == 1
        records = [json.loads(line) for line in truth.read_text().splitlines()]
        assert [(r["fault"], r["post_id"], r["stream"], r["seq"]) for r in records] == [
            ("given_up", post_id, "status", 1)
        ]
        own = [payload for topic, payload, _ in platform.heard if topic.endswith(f"{post_id}/status")]
        sent = sum(b'"seq":1,' in payload for payload in own)
        assert sent >= 3
        told = [span for _, _, body in bodies(platform) if isinstance(body, Heartbeat) for span in body.dropped]
        assert [(span.stream, span.first_seq, span.last_seq) for span in told] == [("status", 1, 1)]


def test_without_receipts_nothing_is_given_up_or_sent_again_and_only_the_bound_drops(
    simulator: Simulator, mosquitto: Mosquitto
) -> None:
    with Listener(mosquitto.port) as listener:
        arguments = ("--rate", "80", "--seconds", "4", "--resend-after", "0.2", "--buffer", "20")
        truth = simulator.root / "truth.ndjson"
        code, _, err = simulator.run("publish", *arguments, "--truth", str(truth))
        assert code == 0, err
        progress = simulator.progress()
        assert (progress["given_up"], progress["resent"]) == (0, 0)
        assert progress["held"] == 20 * POSTS
        assert progress["dropped"] == progress["produced"] - 20 * POSTS
        wait_for(lambda: len(made(listener)) == progress["produced"])
        records = [json.loads(line) for line in truth.read_text().splitlines()]
        assert {record["fault"] for record in records} == {"overflow"}
        assert {(r["post_id"], r["boot_id"], r["stream"], r["seq"]) for r in records} == (
            made(listener) - held(simulator.root)
        )


def test_a_confirmation_that_does_not_come_is_exit_code_1(simulator: Simulator) -> None:
    process = simulator.start("publish", "--seconds", "1", "--confirm", "--resend-after", "0.2")
    wait_for(lambda: simulator.progress().get("resent", 0) > POSTS)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "a signal is no failure"
    code, _, err = simulator.run("publish", "--confirm")
    assert (code, err.count("\n")) == (2, 1)
    assert "--seconds" in err


def test_a_full_disk_ends_the_fleet_before_anything_unjournaled_is_sent(
    simulator: Simulator, mosquitto: Mosquitto
) -> None:
    with Listener(mosquitto.port) as listener:
        process = simulator.start("publish", "--rate", "300", limit=400_000)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert err.count("\n") == 1
        assert ".journal cannot be written" in err
        wait_for(lambda: made(listener) <= held(simulator.root))
        assert made(listener)


def test_old_boots_are_reported_where_a_receipt_waits_in_vain(simulator: Simulator, mosquitto: Mosquitto) -> None:
    """The broken end of an old boot: nothing new of it raises first_seq, so a heartbeat of the next one must speak."""
    with Platform(mosquitto.port) as platform:
        platform.is_silent = True
        code, _, err = simulator.run("publish", "--rate", "60", "--seconds", "3", "--faults", "drop=0.3")
        assert code == 0, err
        old = held(simulator.root)
        assert old
        platform.is_silent = False
        code, _, err = simulator.run("publish", "--rate", "20", "--seconds", "2", "--confirm", "--resend-after", "0.5")
        assert code == 0, err
        assert not held(simulator.root)
        assert any(body.oldest_held for _, _, body in bodies(platform) if isinstance(body, Heartbeat))
        assert sequences(platform)
