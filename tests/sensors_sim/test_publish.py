"""The fleet over real brokers: what it makes arrives, whatever the broker does meanwhile."""

import json
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from contracts.payloads import Birth, Heartbeat, Message, Reading, Will, decode
from contracts.registry import save_registry
from sensors_sim.fleet import build
from tests.broker import Embedded, Mosquitto, free_port
from tests.sensors_sim.listener import Listener, Simulator, wait_for
from tests.sensors_sim.platform import Platform

POSTS = 60


@pytest.fixture
def simulator(tmp_path: Path, mosquitto: Mosquitto) -> Simulator:
    return prepared(tmp_path / "var", mosquitto.port)


def prepared(root: Path, port: int) -> Simulator:
    made = Simulator(root, port)
    save_registry(root / "registry" / "lampposts.json", build(POSTS, 1, False))
    return made


def bodies(listener: Listener) -> list[tuple[str, str, Message]]:
    """(post_id, stream, message) of every different message but wills."""
    found: list[tuple[str, str, Message]] = []
    for topic, payload in listener.payloads():
        reading = decode(topic, payload)
        assert isinstance(reading, Reading), (topic, payload)
        if isinstance(reading.payload, Message):
            found.append((reading.post_id, reading.stream, reading.payload))
    return found


def sequences(listener: Listener) -> dict[tuple[str, str, str], list[int]]:
    found: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for post_id, stream, body in bodies(listener):
        found[post_id, stream, body.boot_id].append(body.seq)
    return found


def test_no_broker_is_one_line_and_nothing_written(tmp_path: Path) -> None:
    simulator = prepared(tmp_path, free_port())
    code, _, err = simulator.run("publish", "--seconds", "1", "--faults", "default")
    assert code == 2
    assert err.count("\n") == 1
    assert "LAMPLIGHT_MQTT_PORT" in err
    assert not simulator.progress()
    assert not [path for path in (tmp_path / "devices").iterdir() if path.name != "lock"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["publish"], "sensors_sim fleet"),
        (["publish", "--posts", "61"], "--posts 61"),
        (["publish", "--faults", "dorp=1"], "dorp"),
        (["publish", "--history", "10", "--rate", "5"], "--history"),
        (["publish", "--rate", "-1"], "--rate"),
        (["replay"], "FILE"),
        (["fly"], "fly"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, argv: list[str], named: str) -> None:
    simulator = Simulator(tmp_path, free_port()) if argv == ["publish"] else prepared(tmp_path, free_port())
    code, _, err = simulator.run(*argv)
    assert (code, err.count("\n")) == (2, 1)
    assert named in err


def test_stored_and_live_readings_all_arrive(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Listener(mosquitto.port) as listener:
        code, _, err = simulator.run("publish", "--history", "6", "--seconds", "3")
        assert code == 0, err
        progress = simulator.progress()
        assert progress["stored_left"] == 0
        assert progress["published"] == progress["produced"]
        wait_for(lambda: len(listener.payloads()) >= progress["produced"])
        for seqs in sequences(listener).values():
            assert sorted(seqs) == list(range(len(seqs)))
        assert Counter(stream for _, stream, _ in bodies(listener))["traffic"] > 500
    with Listener(mosquitto.port) as newcomer:
        wait_for(lambda: len(newcomer.payloads()) >= POSTS)
        assert all(is_retained for _, _, is_retained in newcomer.heard)
        assert all(isinstance(body, Birth) for _, _, body in bodies(newcomer))


def test_the_embedded_broker_takes_it_too(tmp_path: Path, embedded_broker: Embedded) -> None:
    simulator = prepared(tmp_path, embedded_broker.port)
    with Listener(embedded_broker.port) as listener:
        code, _, err = simulator.run("publish", "--history", "2", "--seconds", "1")
        assert code == 0, err
        wait_for(lambda: len(listener.payloads()) >= simulator.progress()["produced"])


def test_a_stopped_broker_loses_nothing(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Listener(mosquitto.port) as listener:
        process = simulator.start("publish", "--rate", "150", "--seconds", "5")
        wait_for(lambda: len(listener.heard) > 150)
        mosquitto.stop()
        stopped_at = simulator.progress()["produced"]
        wait_for(lambda: simulator.progress()["produced"] > stopped_at + 150)
        mosquitto.start()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        progress = simulator.progress()
        assert progress["dropped"] == 0
        wait_for(lambda: len(bodies(listener)) >= progress["produced"])
        for seqs in sequences(listener).values():
            assert sorted(seqs) == list(range(len(seqs)))
        keys = Counter((post, stream, body.boot_id, body.seq) for post, stream, body in bodies(listener))
        assert max(keys.values()) == 1, "the same key has the same bytes"


def test_a_full_buffer_drops_the_oldest_and_says_so(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Platform(mosquitto.port) as listener:
        arguments = ("--posts", "20", "--rate", "80", "--seconds", "8", "--buffer", "12", "--confirm")
        truth = simulator.root / "truth.ndjson"
        process = simulator.start("publish", *arguments, "--resend-after", "1", "--truth", str(truth))
        wait_for(lambda: len(listener.heard) > 150)
        mosquitto.stop()
        wait_for(lambda: simulator.progress()["dropped"] > 50)
        mosquitto.start()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        progress = simulator.progress()
        records = [json.loads(line) for line in truth.read_text().splitlines()]
        assert {record["fault"] for record in records} == {"overflow"}
        assert len(records) == progress["dropped"]
        gone = {(r["post_id"], r["stream"], r["boot_id"], r["seq"]) for r in records}
        heard = {(post_id, stream, body.boot_id, body.seq) for post_id, stream, body in bodies(listener)}
        assert len(heard | gone) == progress["produced"], "what is not heard is on record"
        beats = [(post_id, body) for post_id, _, body in bodies(listener) if isinstance(body, Heartbeat)]
        told = [
            (post_id, span.stream, span.boot_id, seq)
            for post_id, body in beats
            for span in body.dropped
            for seq in range(span.first_seq, span.last_seq + 1)
        ]
        assert set(told) == gone
        assert sum(max(b.dropped_count for p, b in beats if p == post) for post in {p for p, _ in beats}) <= len(gone)


@pytest.mark.parametrize("connections", ["gateway", "post"])
def test_a_killed_fleet_leaves_its_wills(simulator: Simulator, mosquitto: Mosquitto, connections: str) -> None:
    with Listener(mosquitto.port) as listener:
        process = simulator.start("publish", "--connections", connections)
        wait_for(lambda: sum(b'"birth"' in payload for _, payload in listener.payloads()) == POSTS)
        process.kill()
        process.communicate()

        def wills() -> dict[str, Will]:
            read = (decode(topic, payload) for topic, payload in listener.payloads())
            return {r.post_id: r.payload for r in read if isinstance(r, Reading) and isinstance(r.payload, Will)}

        posts = build(POSTS, 1, False).lampposts
        names = {post.gateway_id if connections == "gateway" else post.post_id for post in posts}
        wait_for(lambda: set(wills()) == names)
        births = {post_id: body.boot_id for post_id, _, body in bodies(listener) if isinstance(body, Birth)}
        for name, will in wills().items():
            assert will.gateway_id == (name if connections == "gateway" else None)
            if connections == "post":
                assert will.boot_id == births[name]


def test_a_new_start_is_a_new_boot_that_knows_the_old_one(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Listener(mosquitto.port) as listener:
        for _ in range(2):
            process = simulator.start("publish", "--rate", "100")
            wait_for(lambda: simulator.progress().get("published", 0) > 100)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            simulator.progress()
            (simulator.root / "run" / "fleet.json").unlink()
        wait_for(lambda: sum(isinstance(body, Birth) for _, _, body in bodies(listener)) == 2 * POSTS)
        highest: dict[tuple[str, str], int] = {}
        for (_, stream, boot_id), seqs in sequences(listener).items():
            highest[boot_id, stream] = max(seqs)
        reborn = [body for _, _, body in bodies(listener) if isinstance(body, Birth) and body.previous]
        assert len(reborn) == POSTS
        for body in reborn:
            assert body.previous is not None
            for stream, seq in body.previous.highest_seq.items():
                assert highest[body.previous.boot_id, stream] == seq


def test_two_fleets_do_not_share_a_data_root(simulator: Simulator, mosquitto: Mosquitto) -> None:
    first = simulator.start("publish")
    wait_for(lambda: bool(simulator.progress()))
    code, _, err = simulator.run("publish")
    first.terminate()
    assert first.wait(30) == 0
    assert code == 2
    assert "another fleet" in err


def test_what_arrives_broken_is_in_the_ground_truth(simulator: Simulator, mosquitto: Mosquitto) -> None:
    with Listener(mosquitto.port) as listener:
        spec = "malformed=0.05,truncated=0.05,wrong_topic=0.05,drop=0.05,duplicate=0.05,reorder=0.05"
        code, _, err = simulator.run("publish", "--history", "3", "--seconds", "2", "--faults", spec)
        assert code == 0, err
        progress, truth = simulator.progress(), simulator.truth()
        faults = Counter(record["fault"] for record in truth)
        arrived = progress["produced"] - faults["drop"]
        wait_for(lambda: len(listener.heard) >= arrived + faults["duplicate"])
        assert len(listener.payloads()) == arrived
        assert progress["published"] == arrived + faults["duplicate"]
        broken = [item for item in listener.payloads() if not isinstance(decode(*item), Reading)]
        named = {
            (r["post_id"], r["stream"], r["seq"])
            for r in truth
            if r["fault"] in ("malformed", "truncated", "wrong_topic")
        }
        assert len(broken) == len(named)
