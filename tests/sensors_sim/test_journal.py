"""The devices' disk: what was committed is found again exactly, a torn tail is cut, a broken file is one clear line."""

from pathlib import Path

import pytest

from contracts.payloads import Heartbeat, PreviousBoot, SeqRange, encode
from contracts.settings import SettingError
from contracts.times import from_us
from sensors_sim import boots
from sensors_sim.boots import Memory
from sensors_sim.devices import Message
from sensors_sim.journal import Journal, Place
from sensors_sim.recovery import Recovery, recover

BOOT, NEXT_BOOT = "00000000000000aa", "00000000000000bb"
POST = "KT1000"


def message(seq: int, stream: str = "weather", boot_id: str = BOOT, size: int = 300) -> Message:
    payload = b'{"seq":%d}' % seq + b"x" * size
    topic = f"lamplight/v1/{POST}/{stream}"
    return Message(0, POST, topic, payload, stream, seq, is_stored=False, boot_id=boot_id)


def written(folder: Path, messages: list[Message], file_bytes: int = 10**6) -> Journal:
    """A journal of a run; each message is a commit."""
    journal = Journal(folder / "journal", file_bytes)
    list(journal.load())
    journal.begin(0)
    for one in messages:
        journal.append(one)
        journal.commit()
    return journal


def held(found: Recovery) -> dict[tuple[str, str], list[int]]:
    return {
        (boot_id, stream): [*shelf.stored, *shelf.live]
        for boots_ in found.old.values()
        for boot_id, shelves in boots_.items()
        for stream, shelf in shelves.items()
    }


def again(folder: Path) -> Recovery:
    return recover(folder, Journal(folder / "journal"))


def test_a_new_run_finds_the_bytes_that_were_committed(tmp_path: Path) -> None:
    written(tmp_path, [message(seq) for seq in range(5)])
    journal = Journal(tmp_path / "journal")
    found = recover(tmp_path, journal)
    shelf = found.old[POST][BOOT]["weather"]
    assert {seq: journal.read(one) for seq, one in shelf.live.items()} == {
        seq: message(seq).payload for seq in range(5)
    }
    assert held(again(tmp_path)) == {(BOOT, "weather"): [0, 1, 2, 3, 4]}, "finding does not take away"


def test_a_message_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    long = message(0, size=50_000)
    journal = written(tmp_path, [long, message(1)])
    assert journal.read(long) == long.payload


def test_what_is_settled_or_dropped_is_not_held_and_drops_are_to_be_told(tmp_path: Path) -> None:
    journal = written(tmp_path, [message(seq) for seq in range(6)])
    journal.settle(POST, BOOT, "weather", 2)
    journal.drop(POST, BOOT, "weather", 4, 4)
    journal.commit()
    found = again(tmp_path)
    assert held(found) == {(BOOT, "weather"): [3, 5]}
    assert found.reports.tell(POST, NEXT_BOOT, 1) == [SeqRange(boot_id=BOOT, stream="weather", first_seq=4, last_seq=4)]
    assert not found.reports.tell(POST, NEXT_BOOT, 2), "each range in one heartbeat"


@pytest.mark.parametrize("is_landed", [True, False])
def test_a_drop_is_told_again_only_when_its_heartbeat_is_dropped(tmp_path: Path, is_landed: bool) -> None:
    journal = written(tmp_path, [message(0)])
    journal.drop(POST, BOOT, "weather", 0, 0)
    span = SeqRange(boot_id=BOOT, stream="weather", first_seq=0, last_seq=0)
    beat = message(1, "status")
    beat.payload = encode(
        Heartbeat(schema_version=1, boot_id=BOOT, seq=1, first_seq=1, time=from_us(0), firmware="1", dropped=[span])
    )
    journal.append(beat, is_reporting=True)
    journal.commit()
    assert not again(tmp_path).reports.has_untold(POST), "the heartbeat is still held"
    if is_landed:
        journal.settle(POST, BOOT, "status", 1)
    else:
        journal.drop(POST, BOOT, "status", 1, 1)
    journal.commit()
    found = again(tmp_path)
    told = found.reports.tell(POST, NEXT_BOOT, 1)
    assert (span in told) == (not is_landed)


def test_a_torn_tail_is_cut_at_every_byte(tmp_path: Path) -> None:
    written(tmp_path, [message(0), message(1), message(2, size=20)])
    path = tmp_path / "journal" / "00000001.journal"
    whole = path.read_bytes()
    start = whole.rfind(message(2).topic.encode()) - 86  # a STEP, a head and the post id
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(tmp_path / "journal")
        assert [record.seq for record in journal.load()] == [0, 1]
        assert path.stat().st_size <= end
    path.write_bytes(whole[:-7] + b"garbage")
    assert [record.seq for record in Journal(tmp_path / "journal").load()] == [0, 1]
    written(tmp_path, [message(3)])
    assert held(again(tmp_path)) == {(BOOT, "weather"): [0, 1, 3]}


def test_a_broken_byte_before_the_last_commit_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    written(tmp_path, [message(seq) for seq in range(3)])
    path = tmp_path / "journal" / "00000001.journal"
    whole = path.read_bytes()
    at = whole.find(b'{"seq":1}')
    path.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    with pytest.raises(SettingError, match=r"00000001\.journal is broken"):
        again(tmp_path)
    path.write_bytes(whole[:-3])
    again(tmp_path)  # cut, and a file behind it now
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SettingError, match=r"00000001\.journal is broken"):
        again(tmp_path)


def test_highest_seqs_come_from_the_memory_and_the_journal_together(tmp_path: Path) -> None:
    journal = written(tmp_path, [message(0, "status"), message(0), message(1)])
    place = journal.place
    boots.store(
        tmp_path,
        Memory(
            file=place.file,
            at=place.at,
            posts={POST: PreviousBoot(boot_id=BOOT, highest_seq={"status": 7, "weather": 9})},
        ),
    )
    assert again(tmp_path).previous[POST].highest_seq == {"status": 7, "weather": 9}
    journal.append(message(10))
    journal.give(message(11))
    journal.commit()
    assert again(tmp_path).previous[POST].highest_seq == {"status": 7, "weather": 11}
    journal.append(message(0, "status", NEXT_BOOT))
    journal.append(message(12))  # a stored reading of the boot before
    journal.append(message(3, "air", NEXT_BOOT))
    journal.commit()
    found = again(tmp_path).previous[POST]
    assert (found.boot_id, found.highest_seq) == (NEXT_BOOT, {"status": 0, "air": 3})


def test_stored_readings_that_a_killed_fleet_never_made_are_dropped_ones_once(tmp_path: Path) -> None:
    journal = written(tmp_path, [message(0, "status")])
    journal.plan(POST, BOOT, "weather", 0, 9)
    for seq in range(4):
        one = message(seq)
        one.is_stored = True
        journal.append(one)
    journal.commit()
    found = again(tmp_path)
    assert found.unmade == [(POST, BOOT, "weather", 4, 9)]
    assert found.previous[POST].highest_seq == {"status": 0, "weather": 9}
    assert found.reports.has_untold(POST)
    assert not again(tmp_path).unmade


def test_files_go_when_nothing_of_them_is_held_and_stragglers_are_written_anew(tmp_path: Path) -> None:
    messages = [message(seq, size=2000) for seq in range(60)]
    journal = written(tmp_path, messages, file_bytes=10_000)
    before = len(list((tmp_path / "journal").iterdir()))
    assert before > 10
    straggler = messages[1]
    for one in messages:
        if one is not straggler:
            one.is_gone = True
            journal.forget(one)
    journal.settle(POST, BOOT, "weather", 0)
    journal.drop(POST, BOOT, "weather", 2, 59)
    journal.commit()
    journal.tidy(Place(1, 0))
    assert len(list((tmp_path / "journal").iterdir())) == before, "later files may say what the memory does not"
    journal.tidy(journal.place)
    assert len(list((tmp_path / "journal").iterdir())) <= 2
    assert journal.read(straggler) == message(1, size=2000).payload
    assert held(again(tmp_path)) == {(BOOT, "weather"): [1]}


def test_a_broken_memory_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "boots.json").write_text("{]")
    with pytest.raises(SettingError, match=r"boots\.json"):
        again(tmp_path)
