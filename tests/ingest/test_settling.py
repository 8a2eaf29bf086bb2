"""Every message is settled exactly once: acknowledged when it is durable, or left to the broker, whatever happens."""

import os
import select
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from contracts.events import events_path, read_events
from contracts.layout import Layout, open_segments, sealed_segments
from contracts.segments import read_segment, recover
from ingest import landing as landing_module
from ingest import loop as loop_module
from ingest.arrival import Arrival
from ingest.config import Config
from ingest.landing import Landing, NotDurableError
from ingest.link import Link
from ingest.loop import Loop
from ingest.stop import Stop
from tests.ingest.processes import landed
from tests.ingest.scripted import Message, ScriptedBroker

STOP = Stop()  # never set here: each turn is the test's


# what a seal does to the disk, in its order
SEAL_STEPS = [(landing_module, "_write_whole"), (os, "fsync"), (Path, "rename"), (landing_module, "fsync_folder")]


class OurError(Exception):
    """An error of ours in the middle of the network loop."""


class Settling(RuleBasedStateMachine):
    """A session of one ingest that connects, loses its connection, its disk, its mind or its process, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.broker = ScriptedBroker()
        self.messages: list[Message] = []
        self.durable: set[int] = set()
        self.sessions_lost = self.disks_back = 0
        self.begin()

    def begin(self) -> None:
        """A new process."""
        config = Config(root=self.root, instance="a", mqtt_host="127.0.0.1", mqtt_port=self.broker.port, mqtt311_port=1)
        self.landing = Landing(config.layout, "a")
        self.loop = Loop(config, Link(config), self.landing, STOP)
        self.connect()

    def connect(self) -> None:
        """As `Loop._open`, but with the broker's steps between ours."""
        assert self.loop.link.connect()
        self.broker.accept()
        while not self.loop.link.is_ready:
            self.broker.hear()
            self.turn()

    def turn(self) -> None:
        """One turn of the loop, if there is anything to do; then the broker hears the answers."""
        link = self.loop.link
        if link.connection is not None:
            is_readable = bool(select.select([link.connection], [], [], 0)[0])
            if link.is_buffered or link.wants_write or is_readable:
                self.loop.turn()
        self.hear()

    def hear(self) -> None:
        before = len(self.broker.acknowledgements)
        self.broker.hear()
        if len(self.broker.acknowledgements) > before:
            self.durable = {int(payload.split(b":")[0]) for payload in self.on_disk()}
        for message in self.broker.acknowledgements[before:]:
            assert message.number in self.durable, "acknowledged and not on disk"

    def on_disk(self) -> list[bytes]:
        """What a crash at this moment would leave: sealed segments, and what recovery would make of the open one."""
        found: list[bytes] = landed(self.root)["payload"].to_pylist()
        raw = Layout(self.root).raw
        for path in open_segments(raw, "a"):
            with tempfile.TemporaryDirectory() as aside:
                copy = Path(aside) / path.relative_to(raw)
                copy.parent.mkdir(parents=True)
                copy.write_bytes(path.read_bytes())
                if recover(copy):
                    found += landed_after(Path(aside))
        return found

    def restart(self) -> None:
        """The process ends here, with all that it had in memory."""
        self.loop.link.drop("the process ended")
        self.landing.close()
        self.broker.cut()
        self.begin()

    @rule(contents=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), min_size=1, max_size=5))
    def publish(self, contents: list[tuple[bytes, bytes]]) -> None:
        for topic, payload in contents:
            number = len(self.messages)
            message = Message(number, b"lamplight/v1/" + topic, b"%d:" % number + payload)
            self.messages.append(message)
            self.broker.queue.append(message)
        self.broker.deliver(len(contents))

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        self.broker.deliver(count)

    @rule()
    def work(self) -> None:
        self.turn()

    @rule(is_heard=st.booleans())
    def disconnect(self, is_heard: bool) -> None:
        """With what ingest has received and not yet read, and with PUBACKs on the way or not."""
        if is_heard:
            self.turn()
        self.broker.cut()
        while self.loop.link.connection is not None:
            self.loop.turn()
        self.connect()

    @precondition(lambda self: self.broker.in_flight)
    @rule(is_back=st.booleans())
    def disconnect_during_the_commit(self, is_back: bool) -> None:
        """The next connection may even stand before the commit is over: no PUBACK may cross to it."""
        append = self.landing.append
        is_cut = False

        def cut(arrivals: Sequence[Arrival]) -> None:
            nonlocal is_cut
            append(arrivals)
            is_cut = True
            patch.undo()
            self.loop.link.drop("cut during the commit")
            self.broker.cut()
            if is_back:
                self.connect()
                self.broker.deliver(1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.landing, "append", cut)
            self.turn()
        if is_cut and not is_back:
            self.connect()

    @rule(is_open=st.booleans(), is_written=st.booleans(), is_patient=st.booleans())
    def the_disk_fails(self, is_open: bool, is_written: bool, is_patient: bool) -> None:
        """With a segment open or none, before or after the bytes, and always before the fsync has returned; then the
        disk is back, or ingest is."""
        self.publish([(b"", b"")])
        if is_open:
            self.turn()
            self.publish([(b"", b"")])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*(os, "fsync") if is_written else (landing_module, "_write_whole"), full)
            self.until_refused(self.turn)
            # while the disk is as the failure left it
            self.hear()
            with pytest.raises(NotDurableError):
                self.landing.append([Arrival("t", b"", 0)])
            assert not self.loop.disk.try_again()
        self.go_on(is_patient)

    @rule(step=st.sampled_from(SEAL_STEPS), is_patient=st.booleans())
    def the_seal_fails(self, step: tuple[object, str], is_patient: bool) -> None:
        self.publish([(b"", b"")])
        while self.landing.seal_at is None:
            self.turn()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*step, full)
            self.until_refused(self.loop._seal)
            self.hear()
        self.go_on(is_patient)

    def until_refused(self, step: Callable[[], None]) -> None:
        while self.loop.disk.failing_since is None:
            step()

    def go_on(self, is_patient: bool) -> None:
        if not is_patient:
            self.restart()
            return
        assert self.loop.disk.try_again()
        self.disks_back += 1
        assert open_segments(Layout(self.root).raw, "a") == []
        self.connect()

    @rule()
    def the_broker_forgets(self) -> None:
        """What the session held is gone, ingest says so, and lands what is new."""
        self.turn()
        self.broker.forget()
        while self.loop.link.connection is not None:
            self.loop.turn()
        self.connect()
        self.sessions_lost += 1

    @precondition(lambda self: self.broker.in_flight)
    @rule()
    def an_exception_in_the_network_loop(self) -> None:
        def raising(_arrivals: object) -> None:
            raise OurError

        is_raised = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.landing, "append", raising)
            try:
                self.turn()
            except OurError:
                is_raised = True
        if is_raised:
            self.restart()

    @rule()
    def shut_down(self) -> None:
        """Cleanly, as on SIGTERM, without having read what is on the way."""
        self.loop.commit()
        self.loop.link.close()
        self.hear()
        self.landing.close()
        self.broker.cut()
        self.begin()

    @invariant()
    def nothing_is_acknowledged_twice(self) -> None:
        assert all(message.acknowledged <= 1 for message in self.messages)

    def teardown(self) -> None:
        """In the end, when nothing goes wrong any more, every message is acknowledged once and lies on disk."""
        try:
            while self.broker.queue or self.broker.in_flight:
                self.broker.deliver(10)
                self.turn()
            self.loop.link.close()
            self.landing.close()
            table = landed(self.root)
            kept = set(zip(table["topic"].to_pylist(), table["payload"].to_pylist(), strict=True))
            sent = {(each.topic.decode("utf-8", "backslashreplace"), each.payload) for each in self.messages}
            held = [each for each in self.messages if not each.is_forgotten]
            assert kept <= sent
            assert kept >= {(each.topic.decode("utf-8", "backslashreplace"), each.payload) for each in held}
            assert [each.acknowledged for each in held] == [1] * len(held)
            received = table["received_time"].to_pylist()
            assert all(one < two for one, two in pairwise(received))
            events = [event.kind for event in read_events(events_path(Layout(self.root).raw, "a"))]
            assert events.count("session_lost") == self.sessions_lost
            assert events.count("disk_back") == self.disks_back <= events.count("disk_failed")
        finally:
            self.loop.link.drop("the test ended")
            self.landing.close()
            self.broker.close()
            self.folder.cleanup()


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def landed_after(raw: Path) -> list[bytes]:
    """Payloads of all sealed segments below a raw folder, wherever their offsets begin."""
    return [
        payload
        for segment in sealed_segments(raw, "a")
        for payload in read_segment(raw, segment)["payload"].to_pylist()
    ]


def test_every_message_is_settled_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # so that a piece of the socket outlasts a commit, as it does under load
    monkeypatch.setattr(loop_module, "BATCH_ROWS", 2)
    run_state_machine_as_test(
        Settling,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
