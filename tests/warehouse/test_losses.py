"""What was lost in a day, against the naive ledger; silent streams, statuses and what befell ingest beside it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

from contracts.events import Event, append_event, events_path
from contracts.layout import Layout
from contracts.registry import RegistryFile, save_registry
from contracts.schemas import TABLES
from contracts.streams import STREAMS
from contracts.times import HONG_KONG
from pipelines.kernels.frames import conform
from tests.warehouse.lake_samples import ask, config_of, store, write
from tests.warehouse.naive_ledger import Landed, account
from tests.warehouse.test_ledger import START, fill, worlds
from tests.warehouse.test_ledger import ask as ask_of
from tests.warehouse.test_ledger import catalogue as _catalogue
from tests.warehouse.weeks import MONDAY, post
from warehouse.catalogue import publish

catalogue = _catalogue
DAY = START.replace(hour=9)  # some messages lie in the hour before


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_losses_are_those_of_the_naive_ledger(catalogue: duckdb.DuckDBPyConnection, landed: list[Landed]) -> None:
    fill(catalogue, landed)
    naive = account(landed)
    lost: Counter[tuple[Any, ...]] = Counter()
    known: Counter[tuple[Any, ...]] = Counter()
    for (name, stream, hour, is_keyless), row in naive.rows.items():
        if not DAY <= hour < DAY + timedelta(days=1):
            continue
        known[name, stream] += row["expected"]
        lost[name, stream, "missing"] += row["missing"] - row["awaited"]
        lost[name, stream, "awaited"] += row["awaited"]
        lost[name, stream, "dropped"] += row["dropped"]
        for reason, count in naive.reasons[name, stream, hour, is_keyless].items():
            lost[name, stream, reason] += count
    found = ask_of(catalogue, f"FROM losses_yesterday_since('{DAY.isoformat()}'::TIMESTAMPTZ)")
    assert {(row["post_id"], row["stream"], row["reason"]): row["lost_count"] for row in found} == +lost
    for one in found:
        expected = known[one["post_id"], one["stream"]] or None
        assert one["expected_count"] == expected
        assert one["lost_pct"] == (pytest.approx(100 * one["lost_count"] / expected) if expected else None)


def heartbeats(name: str, times: list[datetime], first_seq: int = 0) -> Iterator[dict[str, Any]]:
    for number, time in enumerate(times):
        yield {"post_id": name, "boot_id": "a" * 16, "seq": first_seq + number, "first_seq": first_seq + number} | {
            "event_time": time,
            "received_time": time,
            "kind": "heartbeat",
            "flag": 1,
            "digest": number,
        }


def fill_day(root: Path, midnight: datetime) -> None:
    """Two posts in the day before this midnight: of one four heartbeats, two of them missing; of the other nothing."""
    hours = [midnight - timedelta(hours=hours) for hours in (20, 19, 18, 17)]
    rows = [row for row in heartbeats("ZZ1001", hours) if row["seq"] not in (1, 2)]
    will = {**rows[0], "kind": "will", "seq": 7, "event_time": midnight - timedelta(minutes=1), "digest": 9}
    frame = conform(pl.DataFrame([*rows, will], infer_schema_length=None), TABLES["device_status"])
    (Layout(root).raw / "b").mkdir(parents=True)
    for event in (
        Event(time=midnight - timedelta(minutes=5), kind="disk_failed", detail="no room"),
        Event(time=midnight + timedelta(minutes=5), kind="disk_back", detail=""),
    ):
        append_event(events_path(Layout(root).raw, "b"), event)
    later = post(3, "Kwun Tong")
    entries = (post(1, "Tsim Sha Tsui"), post(2, "Tsim Sha Tsui"))
    save_registry(Layout(root).registry, RegistryFile(version=1, lampposts=(*entries, later)))
    arrow = frame.to_arrow().cast(TABLES["device_status"].schema)
    store(root, {"device_status": write(root, TABLES["device_status"], arrow)})
    publish(config_of(root))


def test_what_the_post_and_ingest_tell_stands_beside(tmp_path: Path) -> None:
    fill_day(tmp_path, MONDAY)
    since = MONDAY - timedelta(days=1)
    found = ask(tmp_path, f"FROM losses_yesterday_since('{since}'::TIMESTAMPTZ) ORDER BY ALL")
    missing = found.filter(reason="missing").row(0, named=True)
    assert (missing["post_id"], missing["stream"], missing["lost_count"]) == ("ZZ1001", "status", 2)
    assert (missing["expected_count"], missing["lost_pct"]) == (4, 50)
    assert missing["first_hour"] == missing["last_hour"] == (MONDAY - timedelta(hours=20)).astimezone(UTC)
    assert (missing["area"], missing["boot_count"], missing["will_count"]) == ("Tsim Sha Tsui", 0, 1)
    assert missing["last_heard_time"] == MONDAY - timedelta(hours=17)
    assert set(found["ingest_events"]) == {"23:55 disk_failed b"}
    # what nobody heard all day, as often as the cadence promises
    silent = found.filter(reason="silent").select("post_id", "stream", "lost_count").rows()
    streams = {1: ("traffic", "weather"), 2: ("status", "traffic", "weather"), 3: ("status", "traffic", "weather")}
    promised = {name: 86_400 // (stream.cadence_s or 1) for name, stream in STREAMS.items()}
    assert silent == [(f"ZZ100{n}", name, promised[name]) for n, names in streams.items() for name in names]
    # the day after, of which nothing landed, is told of as well; the day after that is not
    assert ask(tmp_path, f"FROM losses_yesterday_since('{MONDAY}'::TIMESTAMPTZ)").height == 9
    assert ask(tmp_path, f"FROM losses_yesterday_since('{MONDAY + timedelta(days=1)}'::TIMESTAMPTZ)").is_empty()


def test_yesterday_is_the_day_before_this_one_in_hong_kong(tmp_path: Path) -> None:
    midnight = datetime.now(HONG_KONG).replace(hour=0, minute=0, second=0, microsecond=0)
    fill_day(tmp_path, midnight)
    since = midnight - timedelta(days=1)
    found = ask(tmp_path, "FROM losses_yesterday ORDER BY ALL", zone="Asia/Kolkata")
    if datetime.now(HONG_KONG).date() != midnight.date():
        pytest.skip("the day ended within the test")
    whole = ask(tmp_path, f"FROM losses_yesterday_since('{since}'::TIMESTAMPTZ) ORDER BY ALL", zone="Asia/Kolkata")
    assert found.height == 9
    assert found.equals(whole)
