"""The session at the broker: what it lost and what it limits is told, a share is shared, an instance is given up."""

import time
from pathlib import Path

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contracts.events import events_path, read_events
from contracts.layout import Layout
from ingest import limits
from tests.broker import Mosquitto, need_mosquitto
from tests.ingest.processes import Running, landed, loop_in_a_thread, numbered, payloads, publish, until
from tests.ingest.scripted import Message, ScriptedBroker
from tests.ingest.test_world import refusal


def events(root: Path, instance: str = "a") -> list[tuple[str, str]]:
    return [(event.kind, event.detail) for event in read_events(events_path(Layout(root).raw, instance))]


def kinds(root: Path, instance: str = "a") -> list[str]:
    return [kind for kind, _ in events(root, instance)]


def test_a_session_that_is_kept_is_no_event(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    for _ in range(2):
        with Running(root, mosquitto.port).until_said("landing from"):
            pass
    with loop_in_a_thread(root, mosquitto.port) as loop:
        mosquitto.stop()
        mosquitto.start()
        until(lambda: loop.link.generation == 1 and loop.link.is_ready)
    assert kinds(root) == ["joined"]


def test_a_session_that_the_broker_lost_is_told_at_a_reconnect_and_at_a_start(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    root = tmp_path / "data"

    def lose() -> None:
        mosquitto.kill()
        mosquitto.forget()
        mosquitto.start()

    with Running(root, mosquitto.port).until_said("landing from") as running:
        lose()
        running.until_said("session lost").until_said("is back after")
        publish(mosquitto.port, numbered(0, 10))
        until(lambda: payloads(root) == numbered(0, 10))
    assert kinds(root) == ["joined", "session_lost"]
    lose()
    with Running(root, mosquitto.port).until_said("landing from") as running:
        running.until_said("session lost")
    assert kinds(root) == ["joined", "session_lost", "session_lost"]
    assert "lamplight-ingest-a" in events(root)[-1][1]


@pytest.mark.parametrize(
    ("line", "other", "words"),
    [
        ("max_inflight_messages 0", "max_inflight_messages 20", "max_inflight_messages"),
        ("set_tcp_nodelay true", "max_keepalive 10", "max_keepalive"),
        ("set_tcp_nodelay true", "max_packet_size 2000", "max_packet_size"),
    ],
)
def test_what_the_broker_limits_is_told_once(tmp_path: Path, line: str, other: str, words: str) -> None:
    need_mosquitto()
    root = tmp_path / "data"
    with Mosquitto(tmp_path / "mosquitto", changes={line: other}) as broker:
        for _ in range(2):
            with Running(root, broker.port).until_said("landing from") as running:
                publish(broker.port, [b"x"])
            assert len([each for each in running.lines if words in each]) == 1
    assert [kind for kind, detail in events(root) if words in detail] == ["limited"]


def test_the_production_brokers_limits_are_none(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Running(tmp_path / "data", mosquitto.port).until_said("landing from") as running:
        pass
    assert len(running.lines) == 1


def test_a_broker_without_qos_1_is_refused(tmp_path: Path) -> None:
    need_mosquitto()
    changes = {"allow_anonymous true": "allow_anonymous true\nmax_qos 0"}
    with Mosquitto(tmp_path / "mosquitto", changes=changes) as broker:
        assert "max_qos" in refusal(tmp_path / "data", broker.port, "run")


def connack(**properties: int) -> Properties:
    made = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    for name, value in properties.items():
        setattr(made, name, value)
    return made


def test_what_other_brokers_say() -> None:
    assert limits.refusal(connack(), is_shared=True) == limits.capped(connack()) == limits.capped(None) == ""
    assert "LAMPLIGHT_INGEST_SUBSCRIPTION" in limits.refusal(connack(SharedSubscriptionAvailable=0), is_shared=True)
    assert limits.refusal(connack(SharedSubscriptionAvailable=0), is_shared=False) == ""
    assert "wildcard" in limits.refusal(connack(WildcardSubscriptionAvailable=0), is_shared=False)
    assert "3600 s" in limits.capped(connack(SessionExpiryInterval=3600))


def test_an_instance_that_subscribed_in_the_other_way_gets_nothing_twice(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    count = 0
    for subscription in ("plain", "shared", "plain", "shared"):
        with Running(root, mosquitto.port, "run", "--subscription", subscription).until_said("landing from"):
            publish(mosquitto.port, numbered(count, 100))
            count += 100
            until(lambda: landed(root).num_rows >= count)  # noqa: B023 (called at once)
    assert payloads(root) == numbered(0, count)


def test_retained_messages_are_not_asked_for(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    publish(mosquitto.port, [b"old"], is_retained=True)
    for subscription in ("plain", "shared"):
        with Running(root, mosquitto.port, "run", "--subscription", subscription).until_said("landing from"):
            publish(mosquitto.port, [subscription.encode()])
            until(lambda: payloads(root)[-1:] == [subscription.encode()])  # noqa: B023 (called at once)
    assert payloads(root) == [b"plain", b"shared"]


def retire(root: Path, port: int, *arguments: str) -> list[str]:
    with Running(root, port, "retire", *arguments) as running:
        assert running.ended() == 0, running.lines
    return running.lines


def test_retiring_waits_for_the_last_message_that_the_broker_still_sends(tmp_path: Path) -> None:
    """One at a time, and one more when ingest asks whether that was all."""
    broker = ScriptedBroker(has_session=True)
    messages = [Message(number, b"lamplight/v1/KT1000/air", b"%d" % number) for number in range(20)]
    broker.queue.extend(messages[:-1])
    broker.late = messages[-1]
    (tmp_path / "raw" / "b").mkdir(parents=True)
    with Running(tmp_path, broker.port, "retire", "--instance", "b") as running:
        broker.accept()
        while running.process.poll() is None:
            broker.hear()
            if broker.unsubscribed and broker.queue and not broker.in_flight:
                broker.deliver(1)
            time.sleep(0.005)
        broker.hear()
        broker.close()
    assert running.process.returncode == 0
    assert broker.subscribed == 0
    assert [message.acknowledged for message in messages] == [1] * len(messages)
    assert landed(tmp_path, "b")["payload"].to_pylist() == [message.payload for message in messages]
    # reason: normal; properties: session expiry interval 0
    assert broker.farewell == b"\x00\x05\x11\0\0\0\0"


def test_retiring_drains_the_session_and_ends_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    for instance in ("a", "b"):
        with Running(root, mosquitto.port, "run", "--instance", instance).until_said("landing from"):
            pass
    # both are away: the broker deals to both all the same
    publish(mosquitto.port, numbered(0, 5_000))
    lines = retire(root, mosquitto.port, "--instance", "b")
    assert "is retired" in lines[-1]
    assert landed(root, "b").num_rows == 2_500
    publish(mosquitto.port, numbered(5_000, 100))
    with Running(root, mosquitto.port).until_said("landing from"):
        until(lambda: landed(root, "a").num_rows == 2_600)
    assert kinds(root, "b") == ["joined", "retired"]
    # a new life is no loss, and the broker had kept nothing for it
    with Running(root, mosquitto.port, "run", "--instance", "b").until_said("landing from"):
        pass
    assert landed(root, "b").num_rows == 2_500
    assert kinds(root, "b") == ["joined", "retired", "joined"]


def test_retiring_what_does_not_exist_or_runs_is_one_line(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root = tmp_path / "data"
    assert "--instance" in refusal(root, mosquitto.port, "retire", "--instance", "b")
    assert not (root / "raw" / "b").exists()
    with Running(root, mosquitto.port).until_said("landing from"):
        assert "already running" in refusal(root, mosquitto.port, "retire")
