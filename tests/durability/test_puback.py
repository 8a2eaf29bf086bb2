"""A trace shows it: the fsync that covers a message, and that of its segment's name, lie before its PUBACK."""

from pathlib import Path

import pytest

from contracts.layout import Layout
from tests.broker import Embedded, Mosquitto
from tests.durability.cuts import Run
from tests.durability.disk import read
from tests.durability.events import Sent
from tests.durability.replay import RawLog
from tests.durability.trace import Traced, need_strace, parse
from tests.ingest.processes import ROOT, command, environment, landed, numbered, publish, until

WITHOUT_FSYNC = "import os\nos.fsync = lambda descriptor: None"
WITHOUT_FOLDERS = """
import os, stat
sync = os.fsync
os.fsync = lambda descriptor: None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else sync(descriptor)
"""


def unprotected(run: Run) -> tuple[int, int]:
    """PUBACKs of a run, and how many of them a power cut at their moment would have made a lie."""
    replay = run.replay()
    raw = RawLog(replay.disk)
    lies = 0
    for event in run.events:
        for message in replay.step(event)[0]:
            lies += raw.update()[message] < replay.acknowledged[message]
    return replay.acknowledged.total(), lies


def record_ingest(folder: Path, port: int, count: int, script: str | None = None) -> Run:
    """Ingest alone, thanking for so many messages, under a trace."""
    need_strace()
    root, out = folder / "data", folder / "trace"
    root.mkdir()
    before = read(root)
    traced = Traced([command("run", script=script)], out, environment(root, port), ROOT)
    try:
        until(Layout(root).progress("ingest").exists)
        publish(port, numbered(0, count))
        until(lambda: landed(root).num_rows == count)
    finally:
        traced.stop()
    with out.open() as lines:
        run = Run(root, before, parse(lines, root))
    assert all(event.data for event in run.events if isinstance(event, Sent))
    return run


@pytest.mark.parametrize(("script", "what"), [(WITHOUT_FSYNC, "any fsync"), (WITHOUT_FOLDERS, "fsync of folders")])
def test_ingest_that_does_not_fsync_is_found_out(script: str, what: str, mosquitto: Mosquitto, tmp_path: Path) -> None:
    acknowledged, lies = unprotected(record_ingest(tmp_path, mosquitto.port, 300, script))
    assert (acknowledged, lies) == (300, 300), what


def test_the_embedded_brokers_messages_are_durable_before_their_puback(
    embedded_broker: Embedded, tmp_path: Path
) -> None:
    assert unprotected(record_ingest(tmp_path, embedded_broker.port, 2_000)) == (2_000, 0)


def test_mosquittos_messages_are_durable_before_their_puback(busy: Run) -> None:
    acknowledged, lies = unprotected(busy)
    assert lies == 0
    assert acknowledged > 5_000
