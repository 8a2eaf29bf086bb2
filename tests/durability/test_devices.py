"""A trace shows it: a simulated device has a message on its own disk before it first sends it."""

import sys
from pathlib import Path

from tests.broker import Mosquitto
from tests.durability.cuts import Run
from tests.durability.disk import read
from tests.durability.trace import Traced, need_strace, parse
from tests.end_to_end.city import ROOT, City, wait_for


def test_a_device_keeps_a_message_durably_before_it_sends_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    need_strace()
    with City(tmp_path / "data", mosquitto.port) as city:
        city.run("sensors_sim", "fleet", "--posts", "8")
        city.start("ingest", "run")
        city.start("ingest", "receipts")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        before, out = read(city.layout.root), tmp_path / "trace"
        publish = ["-m", "sensors_sim", "publish", "--history", "3", "--seconds", "3", "--faults", "none"]
        traced = Traced([[sys.executable, *publish]], out, city.environment, ROOT)
        assert traced.wait() == 0
        with out.open() as lines:
            run = Run(city.layout.root, before, parse(lines, city.layout.root))
    replay, sent = run.replay(), 0
    lies: list[tuple[str, bytes]] = []
    for event in run.events:
        replay.step(event)
        for topic, payload in replay.published[sent:]:
            held = any(payload in file.kept() for _, file in replay.disk.kept_files("devices"))
            if not held and topic.startswith("lamplight/v1/"):
                lies.append((topic, payload))
        sent = len(replay.published)
    assert lies == []
    assert sent > 100
