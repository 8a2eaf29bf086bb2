"""kill -9 at any moment: nothing acknowledged is lost, nothing is doubled, and the tables are those of a quiet run."""

import time
from random import Random

import polars as pl

from contracts.layout import instances, sealed_segments
from contracts.schemas import BY_ARRIVAL, TABLES
from contracts.segments import read_segment
from demo.account import account
from tests.broker import Mosquitto
from tests.end_to_end.city import City, wait_for


def raw_messages(city: City) -> set[tuple[str, bytes]]:
    """Distinct (topic, payload) that landed."""
    found: set[tuple[str, bytes]] = set()
    for instance in instances(city.layout.raw):
        for segment in sealed_segments(city.layout.raw, instance):
            rows = read_segment(city.layout.raw, segment)
            found |= set(zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), strict=True))
    return found


def tables(city: City) -> dict[str, pl.DataFrame]:
    found = {}
    for name in TABLES.keys() - BY_ARRIVAL:
        frame = pl.read_delta(str(city.layout.table(name)))
        columns = [column for column in TABLES[name].schema.names if column not in BY_ARRIVAL]
        found[name] = frame.select(columns).sort(list(dict.fromkeys([*TABLES[name].key, *columns])))
    return found


def test_killed_stages_lose_and_double_nothing(mosquitto: Mosquitto, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("kill")
    random = Random(4)
    city = City(folder / "data", mosquitto.port, LAMPLIGHT_TICK_S="0.2")
    try:
        city.run("sensors_sim", "fleet", "--posts", "40")
        ingest = city.start("ingest", "run")
        pipelines = city.start("pipelines", "run")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        # 20 minutes of 40 posts as fast as they go, then live: devices keep what the broker did not acknowledge
        fleet = city.start("sensors_sim", "publish", "--history", "20", "--flush-rate", "600", "--seconds", "14")
        for _ in range(5):
            time.sleep(random.uniform(0.6, 1.4))
            city.kill(ingest)
            ingest = city.start("ingest", "run")
            time.sleep(random.uniform(0.6, 1.4))
            city.kill(pipelines)
            pipelines = city.start("pipelines", "run")
        assert fleet.wait(timeout=90) == 0
        city.running.remove(fleet)
        published = city.progress("fleet")["published"]
        assert published > 4000
        wait_for("what was published to be durable", lambda: len(raw_messages(city)) >= published, 30)
        assert city.stop(ingest) == 0
        assert city.stop(pipelines) == 0
        city.run("pipelines", "run", "--once")
        found = account(city.layout, time.time_ns() // 1000)
        assert (found.missing, found.doubled) == (0, 0)
        assert found.landed >= published
        # the quiet run: the same raw log, drained once into a lake of its own
        quiet = City(folder / "quiet", mosquitto.port)
        quiet.layout.root.mkdir()
        (quiet.layout.root / "raw").symlink_to(city.layout.raw)
        (quiet.layout.root / "registry").symlink_to(city.layout.root / "registry")
        quiet.run("pipelines", "run", "--once", "--no-release")
        for name, frame in tables(quiet).items():
            assert frame.equals(tables(city)[name]), name
    finally:
        city.close()
