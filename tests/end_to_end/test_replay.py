"""A file as the Transport Department published it goes through the whole system; every lane reading is found again.

The numbers to find come from an independent count of the XML, by the standard library's ElementTree.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.broker import Mosquitto, need_mosquitto
from tests.end_to_end.city import City, wait_for
from warehouse.query import open_catalogue

FILE = Path(__file__).parents[1] / "data" / "rawSpeedVol-all_20240406T2127.xml"


def lanes_of_file() -> Counter[tuple[object, ...]]:
    """(detector, period, lane, speed, volume, occupancy, s.d., valid) and how often the file says so."""
    found: Counter[tuple[object, ...]] = Counter()
    for number, period in enumerate(ET.parse(FILE).getroot().iter("period")):
        for detector in period.iter("detector"):
            for lane in detector.iter("lane"):
                text = {child.tag: child.text or "" for child in lane}
                found[
                    detector.findtext("detector_id"),
                    number,
                    text["lane_id"],
                    float(text["speed"]),
                    int(text["volume"]),
                    float(text["occupancy"]),
                    float(text["s.d."]),
                    text["valid"] == "Y",
                ] += 1
    return found


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> City:
    """The file sent by devices, landed by ingest, cleaned by the pipelines, in the catalogue."""
    need_mosquitto()
    folder = tmp_path_factory.mktemp("replay")
    with Mosquitto(folder / "mosquitto") as broker, City(folder / "data", broker.port) as city:
        city.run("sensors_sim", "fleet", "--posts", "40", "--detectors")
        ingest = city.start("ingest", "run")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        city.run("sensors_sim", "replay", str(FILE))
        sent = sum(1 for _ in ET.parse(FILE).getroot().iter("detector"))
        wait_for("all messages to land", lambda: city.landed() >= sent)
        assert city.stop(ingest) == 0
        city.run("pipelines", "run", "--once")
        city.run("warehouse", "publish")
    return city


def test_the_file_is_what_it_was() -> None:
    lanes = lanes_of_file()
    assert lanes.total() == 4068
    assert len({key[0] for key in lanes}) == 754
    assert sum(count for key, count in lanes.items() if not key[7]) == 232


def test_every_lane_reading_is_a_reading_or_in_quarantine(replayed: City) -> None:
    with open_catalogue(replayed.layout.catalogue) as catalogue:
        rows = catalogue.execute(
            "SELECT post_id, event_time, lane, mean_speed_kmh, vehicle_count, occupancy_pct, speed_sd_kmh, is_valid"
            " FROM lane_flows"
        ).fetchall()
        refused = catalogue.execute("SELECT topic, reason, payload FROM quarantine").fetchall()
    periods = sorted({row[1] for row in rows})
    assert len(periods) == 2
    assert periods[1] - periods[0] == timedelta(seconds=30)
    found: Counter[tuple[object, ...]] = Counter(
        (row[0], periods.index(row[1]), row[2], row[3], row[4], row[5], row[6], row[7]) for row in rows
    )
    reasons: Counter[str] = Counter()
    for topic, reason, payload in refused:
        message = msgspec.json.decode(payload)
        period = periods.index(datetime.fromisoformat(message["time"]))
        for lane in message["lanes"]:
            reasons[reason] += 1
            found[
                topic.split("/")[2],
                period,
                lane["lane"],
                lane["mean_speed_kmh"],
                lane["vehicle_count"],
                lane["occupancy_pct"],
                lane["speed_sd_kmh"],
                lane.get("is_valid", True),
            ] += 1
    assert found == lanes_of_file()
    assert found.total() == 4068
    assert set(reasons) <= {"unknown_post", "unknown_direction"}


def test_quarantine_holds_the_detectors_without_a_place(replayed: City) -> None:
    """Exactly the detectors that the location file does not list are unknown posts."""
    registered = {
        post["post_id"]
        for post in msgspec.json.decode(replayed.layout.registry.read_bytes())["lampposts"]
        if post["kind"] == "detector"
    }
    unknown = {key[0] for key in lanes_of_file()} - registered
    quarantine = pl.read_delta(str(replayed.layout.table("quarantine")))
    refused = set(quarantine.filter(pl.col("reason") == "unknown_post")["post_id"])
    assert refused == unknown
    assert unknown


def test_dirt_is_flagged_as_an_independent_rule_says(replayed: City) -> None:
    """Offline: 9. With vehicles, a speed outside 1..130: 4. Repeated lanes: 3. A placeholder speed is not judged."""
    lanes = pl.read_delta(str(replayed.layout.table("lane_flows")))
    assert lanes.filter(~pl.col("is_valid"))["flag"].unique().to_list() == [9]
    online = lanes.filter("is_valid")
    impossible = online.filter((pl.col("vehicle_count") > 0) & ~pl.col("mean_speed_kmh").is_between(1, 130))
    assert impossible["flag"].unique().to_list() == [4]
    placeholders = online.filter((pl.col("vehicle_count") == 0) & (pl.col("mean_speed_kmh") > 0))
    assert set(placeholders["flag"]) <= {1, 3}
    good = online.filter(pl.col("flag") == 1)
    minutes = pl.read_delta(str(replayed.layout.table("flow_minutes")))
    assert minutes["vehicle_count"].sum() == good["vehicle_count"].sum()
    assert minutes["lane_summaries"].sum() == good.height


def test_replayed_detectors_are_not_released(replayed: City) -> None:
    rows = pl.read_parquet(replayed.layout.open / "latest" / "traffic.parquet")
    assert not set(rows["post_id"]) & set(pl.read_delta(str(replayed.layout.table("lane_flows")))["post_id"])
    assert "AID" not in (replayed.layout.open / "lampposts.csv").read_text()
