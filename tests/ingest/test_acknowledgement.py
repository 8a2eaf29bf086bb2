"""Law 1 over a real Mosquitto: a PUBACK leaves after the fsync that covers its message, in the order of arrival."""

import os
from pathlib import Path
from typing import Any

import pytest

from ingest import landing
from ingest.client import PieceClient
from ingest.landing import Landing
from ingest.link import Link
from tests.broker import Embedded, Mosquitto
from tests.ingest.processes import landed, loop_in_a_thread, nothing_is_open, numbered, payloads, publish, until


class Journal:
    """What happened in the process, in order: arrivals, fsyncs of files and folders, PUBACKs on the wire."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.events: list[tuple[str, Any]] = []
        fsync, send, arrive = os.fsync, PieceClient._sock_send, Link._on_arrival

        def fsynced(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            self.events.append(("fsync", (path, path.stat().st_size)))

        def sent(client: PieceClient, content: bytes) -> int:
            count = send(client, content)
            if content[0] == 0x40:
                assert count % 4 == 0, "a torn PUBACK: the order below would be a guess"
                self.events += [
                    ("puback", int.from_bytes(content[at + 2 : at + 4], "big")) for at in range(0, count, 4)
                ]
            return count

        def arrived(link: Link, topic: bytes, payload: bytes, mid: int, *rest: Any) -> None:
            self.events.append(("arrival", mid))
            arrive(link, topic, payload, mid, *rest)

        patch.setattr(os, "fsync", fsynced)
        patch.setattr(PieceClient, "_sock_send", sent)
        patch.setattr(Link, "_on_arrival", arrived)

    def of(self, kind: str) -> list[Any]:
        return [what for each, what in self.events if each == kind]


def test_a_puback_leaves_after_the_fsync_that_covers_it_in_arrival_order(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[int, tuple[Path, int]] = {}  # rows -> the file and the size at which so many are whole
    append = Landing.append

    def appended(self: Landing, arrivals: Any) -> None:
        append(self, arrivals)
        sizes[self.next_offset] = (self._opened, self._bytes)

    monkeypatch.setattr(Landing, "append", appended)
    journal = Journal(monkeypatch)
    with loop_in_a_thread(tmp_path / "data", mosquitto.port):
        publish(mosquitto.port, numbered(0, 3000))
        until(lambda: len(journal.of("puback")) == 3000)
    assert journal.of("puback") == journal.of("arrival")
    assert payloads(tmp_path / "data") == numbered(0, 3000)
    fsynced: dict[Path, int] = {}
    folders: set[Path] = set()
    acknowledged = 0
    commits = sorted(sizes)
    for kind, what in journal.events:
        if kind == "fsync":
            path, size = what
            fsynced[path] = size
            folders.add(path)
        elif kind == "puback":
            acknowledged += 1
            # the file, up to the end of the commit that holds this message, and the folder that names it
            path, size = sizes[next(rows for rows in commits if rows >= acknowledged)]
            assert fsynced[path] >= size + len(landing._HEAD)
            assert path.parent in folders
            assert path.parent.parent in folders


def test_one_message_is_sealed_although_nothing_follows(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with loop_in_a_thread(tmp_path / "data", mosquitto.port):
        publish(mosquitto.port, [b"alone"])
        until(lambda: landed(tmp_path / "data").num_rows == 1)
        assert nothing_is_open(tmp_path / "data")


def test_the_acks_of_a_connection_that_ended_during_the_commit_are_never_sent(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Landing.append
    journal = Journal(monkeypatch)
    with loop_in_a_thread(tmp_path / "data", mosquitto.port) as loop:

        def cut(self: Landing, arrivals: Any) -> None:
            append(self, arrivals)
            if loop.link.generation == 0:
                loop.link.drop("cut during the commit, for the test")

        monkeypatch.setattr(Landing, "append", cut)
        publish(mosquitto.port, numbered(0, 50))
        until(lambda: len(journal.of("puback")) == 50)
        first_commit = loop.landing.next_offset - 50
        assert loop.link.generation == 1
    # what the first connection delivered landed, was not acknowledged, and came again
    assert first_commit > 0
    assert payloads(tmp_path / "data")[first_commit:] == numbered(0, 50)
    assert journal.of("arrival")[-50:] == journal.of("puback")


def test_a_lost_broker_is_found_again_with_the_session(tmp_path: Path, mosquitto: Mosquitto, capfd: Any) -> None:
    with loop_in_a_thread(tmp_path / "data", mosquitto.port) as loop:
        publish(mosquitto.port, numbered(0, 10))
        until(lambda: landed(tmp_path / "data").num_rows == 10)
        mosquitto.stop()
        mosquitto.start()
        # Mosquitto 2.0 keeps the session and its queue, and forgets that the session had a shared subscription
        until(lambda: loop.link.generation == 1 and loop.link.is_ready)
        publish(mosquitto.port, numbered(10, 10))
        until(lambda: landed(tmp_path / "data").num_rows == 20)
    assert payloads(tmp_path / "data") == numbered(0, 20)
    said = [line for line in capfd.readouterr().err.splitlines() if "lamplight:" in line]
    assert ["landing from" in said[0], "lost (" in said[1], "is back after" in said[2], len(said)] == [True] * 3 + [3]


def test_a_broker_that_forgot_the_session_is_subscribed_again(tmp_path: Path, embedded_broker: Embedded) -> None:
    with loop_in_a_thread(tmp_path / "data", embedded_broker.port, is_shared=False) as loop:
        publish(embedded_broker.port, numbered(0, 10))
        until(lambda: landed(tmp_path / "data").num_rows == 10)
        embedded_broker.stop()
        until(lambda: not loop.link.is_ready)
        embedded_broker.start()
        until(lambda: loop.link.is_ready)
        publish(embedded_broker.port, numbered(10, 10))
        until(lambda: landed(tmp_path / "data").num_rows == 20)
    assert payloads(tmp_path / "data") == numbered(0, 20)


def test_an_exception_in_the_network_loop_ends_it_with_that_error(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("an error of ours")

    journal = Journal(monkeypatch)
    monkeypatch.setattr(Link, "_on_arrival", broken)
    running = loop_in_a_thread(tmp_path / "data", mosquitto.port)
    loop = running.__enter__()
    publish(mosquitto.port, [b"poison"])
    until(lambda: loop.link.connection is None)
    with pytest.raises(ZeroDivisionError, match="an error of ours"):
        running.__exit__(None, None, None)
    assert journal.of("puback") == []
    assert payloads(tmp_path / "data") == []
    assert nothing_is_open(tmp_path / "data")
    monkeypatch.undo()
    with loop_in_a_thread(tmp_path / "data", mosquitto.port):
        until(lambda: payloads(tmp_path / "data") == [b"poison"])
