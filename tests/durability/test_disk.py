"""The model of the disk: what is fsynced stays as it was then, and nothing else does."""

import os
import sqlite3
import sys
from pathlib import Path
from random import Random

import pytest

from tests.durability.disk import Disk, Tree, read
from tests.durability.events import Event
from tests.durability.trace import Traced, UnknownCallError, need_strace, parse

ROOT = Path(__file__).parents[2]


def traced(folder: Path, script: str) -> tuple[Disk, list[Event]]:
    """A disk as it was before a Python script ran in `folder`, and what the script did to it."""
    need_strace()
    data = folder / "data"
    data.mkdir(exist_ok=True)
    disk, out = Disk(data), folder / "trace"
    assert Traced([[sys.executable, "-c", script]], out, os.environ, data).wait() == 0
    with out.open() as lines:
        return disk, parse(lines, data)


def after(folder: Path, script: str) -> tuple[Tree, Disk]:
    """What a power cut leaves at the end of a script; what processes saw is checked against the real folder."""
    disk, events = traced(folder, f"import os\nd = {str(folder / 'data')!r}\nos.chdir(d)\n{script}")
    for event in events:
        disk.apply(event)
    assert disk.live() == read(folder / "data")
    return disk.kept(), disk


WRITE = "f = os.open(d + '/a', os.O_CREAT | os.O_WRONLY); os.write(f, b'one')\n"
SYNC = "os.fsync(f)\n"
SYNC_FOLDER = "g = os.open(d, os.O_RDONLY | os.O_DIRECTORY); os.fsync(g)\n"


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        (WRITE, {}),
        (WRITE + SYNC, {}),
        (WRITE + SYNC_FOLDER, {"a": b""}),
        (WRITE + SYNC + SYNC_FOLDER, {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.write(f, b'two')", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.pwrite(f, b'X', 5); os.fdatasync(f)", {"a": b"one\0\0X"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.lseek(f, 1, 0); os.write(f, b'X')\n" + SYNC, {"a": b"oXe"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.ftruncate(f, 1)", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.ftruncate(f, 1)\n" + SYNC, {"a": b"o"}),
        (WRITE + SYNC + SYNC_FOLDER + "open(d + '/a', 'wb').close()", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.rename(d + '/a', d + '/b')", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.rename(d + '/a', d + '/b'); os.fsync(g)", {"b": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.link(d + '/a', d + '/b')", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.link(d + '/a', d + '/b'); os.fsync(g)", {"a": b"one", "b": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.unlink(d + '/a')", {"a": b"one"}),
        (WRITE + SYNC + SYNC_FOLDER + "os.unlink(d + '/a'); os.fsync(g)", {}),
        (WRITE + "os.sync()", {"a": b"one"}),
        ("os.mkdir(d + '/k'); open(d + '/k/a', 'w').close(); os.fsync(os.open(d + '/k', os.O_RDONLY))", {}),
        ("os.mkdir(d + '/k')\n" + SYNC_FOLDER + "open(d + '/k/a', 'w').close()", {"k": None}),
        (
            "os.mkdir(d + '/k'); open(d + '/k/a', 'w').close(); os.fsync(os.open(d + '/k', os.O_RDONLY))\n"
            + SYNC_FOLDER,
            {"k": None, "k/a": b""},
        ),
        (
            "h = open(d + '/a', 'ab'); h.write(b'1'); h.flush(); os.fsync(h.fileno()); h.seek(0); h.write(b'2')\n"
            "h.flush(); os.fsync(h.fileno())\n" + SYNC_FOLDER,
            {"a": b"12"},
        ),
    ],
)
def test_a_cut_leaves_what_was_fsynced(script: str, kept: Tree, tmp_path: Path) -> None:
    assert after(tmp_path, script)[0] == kept


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    script = WRITE + SYNC + SYNC_FOLDER + "open(d + '/b', 'w').write('new'); os.rename(d + '/b', d + '/a')"
    kept, disk = after(tmp_path, script)
    assert kept == {"a": b"one"}
    # and with luck: the old one, or the new name with or without the bytes that nobody fsynced
    random = Random(0)
    seen = {tuple(sorted(disk.kept(random).items())) for _ in range(200)}
    assert {(("a", b"one"),), (("a", b""),), (("a", b"new"),)} <= seen
    assert all(dict(tree).keys() <= {"a", "b"} for tree in seen)


def test_threads_and_a_database_are_followed_byte_for_byte(tmp_path: Path) -> None:
    script = """
import sqlite3, threading
def work(number):
    for count in range(40):
        with open(f"{d}/{number}.tmp", "wb") as handle:
            handle.write(bytes([count]) * 5000); handle.flush(); os.fsync(handle.fileno())
        os.replace(f"{d}/{number}.tmp", f"{d}/{number}")
        os.fsync(g)
g = os.open(d, os.O_RDONLY)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
db = sqlite3.connect(d + "/db", isolation_level=None)
db.execute("PRAGMA synchronous = EXTRA")
db.execute("CREATE TABLE t (a)")
for value in range(20): db.execute("INSERT INTO t VALUES (?)", (value,))
for thread in threads: thread.join()
"""
    kept, _ = after(tmp_path, script)
    assert all(kept[str(number)] == bytes([39]) * 5000 for number in range(4))
    (tmp_path / "db").write_bytes(kept["db"] or b"")
    assert sqlite3.connect(tmp_path / "db").execute("SELECT count(*) FROM t").fetchall() == [(20,)]


def test_what_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    script = "f = os.open(d + '/a', os.O_CREAT | os.O_RDWR); os.ftruncate(f, 9); import mmap; mmap.mmap(f, 9)"
    with pytest.raises(UnknownCallError, match="mmap"):
        after(tmp_path, script)


def test_strace_is_what_ci_installs() -> None:
    assert "missing+=(strace)" in (ROOT / ".ci" / "run").read_text()
