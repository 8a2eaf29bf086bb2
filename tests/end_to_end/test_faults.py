"""Each fault that the simulator injects and records is found where it belongs, exactly, and nothing else is there."""

import json
from collections import Counter
from typing import Any

import polars as pl
import pytest

from tests.broker import Mosquitto, need_mosquitto
from tests.end_to_end.city import City, wait_for

# How a fault shows: reason of quarantine, or flag of a value. A message that several strike is refused for the first
# that the pipeline looks at: topic, then bytes, then time, then post.
REASONS = {
    "wrong_topic": "unknown_topic",
    "malformed": "malformed",
    "truncated": "malformed",
    "future": "future",
    "unknown_post": "unknown_post",
}
FLAGS = {"sentinel": 9, "out_of_range": 4}
RATES = ",".join(f"{name}=0.01" for name in (*REASONS, *FLAGS, "duplicate", "reorder"))


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    """An hour of forty faulty posts, landed and cleaned."""
    need_mosquitto()
    folder = tmp_path_factory.mktemp("faults")
    with Mosquitto(folder / "mosquitto") as broker, City(folder / "data", broker.port) as city:
        city.run("sensors_sim", "fleet", "--posts", "40")
        ingest = city.start("ingest", "run")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        city.run("sensors_sim", "publish", "--history", "60", "--seconds", "1", "--faults", RATES)
        published = city.progress("fleet")["published"]
        wait_for("all messages to land", lambda: city.landed() >= published)
        assert city.stop(ingest) == 0
        city.run("pipelines", "run", "--once", "--no-release")
    return city


def truth(city: City) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (city.layout.root / "devices" / "truth.ndjson").read_text().splitlines()]


def test_quarantine_holds_the_injected_faults_and_nothing_else(city: City) -> None:
    struck: dict[tuple[str, str, int], set[str]] = {}
    for record in truth(city):
        if record["fault"] in REASONS:
            struck.setdefault((record["post_id"], record["stream"], record["seq"]), set()).add(record["fault"])
    injected = Counter(REASONS[min(faults, key=list(REASONS).index)] for faults in struck.values())
    quarantine = pl.read_delta(str(city.layout.table("quarantine"))).unique(["topic", "digest"])
    found = Counter(quarantine["reason"].to_list())
    # two of one topic that are cut off at the same byte before their seq are the same bytes
    nameless = quarantine.filter(pl.col("seq").is_null() & (pl.col("reason") == "malformed"))
    assert injected["malformed"] - nameless.height // 4 <= found["malformed"] <= injected["malformed"]
    assert set(found) == set(REASONS.values())
    assert {**found, "malformed": 0} == {**injected, "malformed": 0}


def test_flags_stand_on_the_injected_values_and_no_other(city: City) -> None:
    injected = {
        (record["post_id"], record["stream"], record["seq"], record["quantity"], FLAGS[record["fault"]])
        for record in truth(city)
        if record["fault"] in FLAGS
    }
    refused = {
        (record["post_id"], record["stream"], record["seq"]) for record in truth(city) if record["fault"] in REASONS
    }
    values = pl.read_delta(str(city.layout.table("observations"))).filter(~pl.col("flag").is_in([1, 2]))
    found = set(values.select("post_id", "stream", "seq", "quantity", pl.col("flag").cast(pl.Int64)).rows())
    assert found == {row for row in injected if row[:3] not in refused}
    assert found


def test_duplicates_leave_no_second_row(city: City) -> None:
    assert any(record["fault"] == "duplicate" for record in truth(city))
    values = pl.read_delta(str(city.layout.table("observations")))
    assert not values["is_conflicting"].any()
    assert not values.select("post_id", "stream", "boot_id", "seq", "quantity").is_duplicated().any()


def test_a_harmonic_mean_is_never_above_the_arithmetic_one(city: City) -> None:
    """Space-mean and mean speed of what the devices really sent; they round sums to six decimals."""
    flows = pl.read_delta(str(city.layout.table("flow_windows"))).filter(pl.col("speed_count") > 0)
    assert flows.height > 100
    assert (flows["space_mean_speed_kmh"] <= flows["mean_speed_kmh"] + 0.02).all()
