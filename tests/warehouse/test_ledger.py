"""The SQL ledger is the naive one, whatever landed; and expected = accepted + quarantined + dropped + missing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import payloads
from contracts.payloads import OldestHeld, PreviousBoot, SeqRange
from contracts.schemas import DUPLICATES, READING_TABLES, TABLES
from contracts.topics import device_topic
from pipelines.kernels.decode import Tolerance, decode_messages
from pipelines.kernels.frames import empty
from pipelines.kernels.unite import extra_copies, unite
from tests.pipelines import raw_log
from tests.warehouse.naive_ledger import COUNTS, LATE, Landed, account
from warehouse.reference import REFERENCE, full_name
from warehouse.views import SCHEMAS, sql_views

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
POSTS = raw_log.POSTS[:2]
BOOTS = ("00000000000000a1", "00000000000000b2", "00000000000000c3")
STREAMS = ("weather", "pedestrian", "status")
NOBODY = "ZZ0001"
DELAYS_S = (1, 119, 120, 3599, 3600, 86_399, 86_400, 200_000)

seqs = st.integers(0, 7)
boots = st.sampled_from(BOOTS)
streams = st.sampled_from(STREAMS)
spans = st.builds(SeqRange, boot_id=boots, stream=streams, first_seq=seqs, last_seq=seqs)
oldest = st.builds(OldestHeld, boot_id=boots, stream=streams, seq=seqs)
previous = st.builds(PreviousBoot, boot_id=boots, highest_seq=st.dictionaries(streams, seqs, max_size=3))
FAULTS = ("malformed", "cut", "cut_early", "future", "unknown_post", "wrong_topic", "will")


@st.composite
def landed_ones(draw: st.DrawFn) -> Landed:
    """A message of a small world: two posts, three boots, few seqs, so that everything meets everything."""
    post, boot, stream = draw(st.sampled_from(POSTS)), draw(boots), draw(streams)
    seq, first_seq = draw(seqs), draw(st.one_of(st.just(0), seqs))
    time = START + timedelta(minutes=draw(st.sampled_from((0, 1, 59, 60, 61, 150))))
    received = time + timedelta(seconds=draw(st.sampled_from(DELAYS_S)))
    fault = draw(st.one_of(st.none(), st.sampled_from(FAULTS)))
    head: dict[str, Any] = {"schema_version": 1, "boot_id": boot, "seq": seq, "first_seq": first_seq, "time": time}
    said: dict[str, Any] = {}
    message: Any
    if stream == "weather":
        message = payloads.Weather(**head, temperature_c=float(draw(st.integers(0, 1))))
    elif stream == "pedestrian":
        message = payloads.Pedestrian(**head, crossings_in_count=draw(st.integers(0, 1)), crossings_out_count=0)
    elif draw(st.booleans()):
        said = {"previous": draw(st.one_of(st.none(), previous)), "kind": "birth"}
        message = payloads.Birth(**head, firmware="1", previous=said["previous"])
    else:
        dropped, kept = draw(st.lists(spans, max_size=2)), draw(st.lists(oldest, max_size=1))
        said = {"dropped": tuple(dropped), "oldest_held": tuple(kept), "kind": "heartbeat"}
        message = payloads.Heartbeat(**head, firmware="1", dropped=dropped, oldest_held=kept)
    one: dict[str, Any] = {
        "topic": device_topic(post, stream),
        "payload": payloads.encode(message),
        "time": time,
        "post": post,
        "stream": stream,
        "boot": boot,
        "seq": seq,
        "first_seq": first_seq,
        "reason": None,
    }
    if fault == "will" and stream == "status":
        post = draw(st.sampled_from((*POSTS, NOBODY)))
        will = payloads.encode(payloads.Will(schema_version=1, boot_id=boot, connection=seq))
        reason = "unknown_post" if post == NOBODY else None
        one |= {"topic": device_topic(post, stream), "payload": will, "time": None, "post": post, "reason": reason}
        one |= {"seq": None} if reason else {}
        said = {"kind": "will"}
    elif fault == "malformed":
        one |= {"payload": one["payload"][:-1] + b"]", "reason": "malformed"}
        said = {}
    elif fault == "cut":
        one |= {"payload": one["payload"][: one["payload"].index(b'"time"') + 3], "time": None, "reason": "malformed"}
        said = {}
    elif fault == "cut_early":
        one |= {"payload": one["payload"][:30], "time": None, "seq": None, "reason": "malformed"}
        said = {}
    elif fault == "wrong_topic":
        one |= {"topic": one["topic"] + "s", "post": None, "stream": None, "reason": "unknown_topic"}
        said = {}
    elif seq < first_seq:
        one |= {"reason": "invalid", "time": time}
        said = {}
    elif fault == "future":
        received = time - timedelta(hours=draw(st.integers(1, 2)))
        one["reason"] = "future"
    elif fault == "unknown_post":
        one |= {"topic": device_topic(NOBODY, stream), "post": NOBODY, "reason": "unknown_post"}
    if one["reason"] == "invalid":
        # refused before its time was looked at, but its head tells it
        one["time"] = time
    return Landed(**one, **said, received=received)


@st.composite
def worlds(draw: st.DrawFn) -> list[Landed]:
    """What landed, some of it more than once; no two messages of an ingest instance have one received_time."""
    found = draw(st.lists(landed_ones(), max_size=14))
    again = draw(st.lists(st.sampled_from(found), max_size=4)) if found else []
    whole = []
    for number, one in enumerate(draw(st.permutations([*found, *again]))):
        late = (
            timedelta(hours=number % 3) if number >= len(found) and one.reason in (None, "malformed") else timedelta()
        )
        whole.append(Landed(**{**one.__dict__, "received": one.received + late + timedelta(microseconds=number)}))
    return whole


@pytest.fixture(scope="module")
def catalogue() -> Iterator[duckdb.DuckDBPyConnection]:
    """Empty tables where the catalogue has files, and the views that analysts have; a zone with half an hour."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'; SET threads = 1")
        for name in ("lake", *SCHEMAS):
            connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(f"SET search_path = '{','.join(('main', *SCHEMAS))}'")
        for name, table in TABLES.items():
            connection.register("rows", table.schema.empty_table())
            connection.execute(f"CREATE TABLE lake.{name} AS SELECT * FROM rows")
            connection.unregister("rows")
        for name, schema in REFERENCE.items():
            connection.register("rows", schema.empty_table())
            connection.execute(f"CREATE TABLE {full_name(name)} AS SELECT * FROM rows")
            connection.unregister("rows")
        for view in sql_views():
            if view.macro:
                connection.execute(f"CREATE VIEW {view.full_name} AS {view.text}")
                connection.execute(f"CREATE MACRO {view.full_name}_since(since) AS TABLE {view.macro}")
        yield connection


def fill(connection: duckdb.DuckDBPyConnection, landed: list[Landed]) -> None:
    """What the pipeline makes of these messages, in place of what was there."""
    rows = [raw_log.Landed(one.topic, one.payload, one.received) for one in landed]
    frames = decode_messages(pa.Table.from_batches([raw_log.raw_batch(rows)]), raw_log.registry(), Tolerance())
    tables = {name: unite(empty(TABLES[name]), frame, TABLES[name]) for name, frame in frames.items()}
    copies = [extra_copies(empty(t), frames[t.name], t) for t in READING_TABLES if t.name in frames]
    if copies:
        tables[DUPLICATES.name] = pl.concat(copies)
    for name, table in TABLES.items():
        connection.execute(f"DELETE FROM lake.{name}")
        if name in tables:
            connection.register("rows", tables[name].to_arrow().cast(table.schema))
            connection.execute(f"INSERT INTO lake.{name} SELECT * FROM rows")
            connection.unregister("rows")


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    done = connection.execute(query)
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def seqs_by_boot(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], set[int]]:
    """Seqs of ranges by (post, stream, boot); the ranges are whole and apart from each other."""
    found: dict[tuple[str, ...], set[int]] = {}
    for row in rows:
        seqs_of = set(range(row["first_seq"], row["last_seq"] + 1))
        assert len(seqs_of) == row["missing_count" if "missing_count" in row else "dropped_count"] > 0
        known = found.setdefault((row["post_id"], row["stream"], row["boot_id"]), set())
        assert not known & seqs_of
        known |= seqs_of
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_the_ledger_is_the_naive_one(catalogue: duckdb.DuckDBPyConnection, landed: list[Landed]) -> None:
    fill(catalogue, landed)
    wanted = account(landed)
    found = {
        (row["post_id"], row["stream"], row["window_start"].astimezone(UTC), row["is_keyless"]): row
        for row in ask(catalogue, "SELECT * FROM ledger")
    }
    assert found.keys() == wanted.rows.keys()
    for key, row in found.items():
        counts = {name: row[f"{name}_count"] for name in (*COUNTS, *LATE)}
        assert counts == {name: wanted.rows[key][name] for name in counts}, key
        assert dict(row["quarantine_reasons"]) == wanted.reasons[key]
        assert counts["expected"] == sum(counts[name] for name in ("accepted", "quarantined", "dropped", "missing"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_the_ranges_are_the_naive_seqs_and_boots_expect_what_the_ledger_does(
    catalogue: duckdb.DuckDBPyConnection, landed: list[Landed]
) -> None:
    fill(catalogue, landed)
    wanted = account(landed)
    missing = ask(catalogue, "SELECT * FROM missing_ranges")
    assert seqs_by_boot(missing) == wanted.missing
    assert seqs_by_boot([row for row in missing if row["is_awaited"]]) == wanted.awaited
    assert seqs_by_boot(ask(catalogue, "SELECT * FROM dropped_ranges")) == wanted.dropped
    # counted once more, from the ends of the boots alone
    bounds = "SELECT coalesce(sum(last_seq - first_seq + 1), 0) AS n FROM boot_streams"
    assert ask(catalogue, bounds)[0]["n"] == sum(row["expected"] for row in wanted.rows.values())


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_since_a_moment_is_the_ledger_of_its_hour_and_later(
    catalogue: duckdb.DuckDBPyConnection, landed: list[Landed]
) -> None:
    fill(catalogue, landed)
    since = START + timedelta(minutes=70)
    later = ask(catalogue, f"SELECT * FROM ledger_since('{since.isoformat()}'::TIMESTAMPTZ) ORDER BY ALL")
    whole = ask(catalogue, "SELECT * FROM ledger ORDER BY ALL")
    assert later == [row for row in whole if row["window_start"] >= START + timedelta(hours=1)]


def beat(seq: int, time: datetime, dropped: list[SeqRange], first_seq: int = 0) -> Landed:
    post, boot = POSTS[0], BOOTS[0]
    message = payloads.Heartbeat(
        schema_version=1, boot_id=boot, seq=seq, first_seq=first_seq, time=time, firmware="1", dropped=dropped
    )
    return Landed(
        topic=device_topic(post, "status"),
        payload=payloads.encode(message),
        received=time + timedelta(seconds=1),
        time=time,
        post=post,
        stream="status",
        boot=boot,
        seq=seq,
        first_seq=first_seq,
        reason=None,
    )


def test_a_device_that_claims_all_seqs_there_are_costs_no_more_than_another(
    catalogue: duckdb.DuckDBPyConnection,
) -> None:
    """A thousand boots of 2^53 messages each are more than a BIGINT holds: the counts of that row stop before."""
    boots_claimed = [f"{number:016x}" for number in range(1_100)]
    claims = [
        [SeqRange(boot_id=boot, stream="weather", first_seq=0, last_seq=2**53) for boot in boots_claimed[at : at + 100]]
        for at in range(0, len(boots_claimed), 100)
    ]
    fill(catalogue, [beat(seq, START + timedelta(minutes=seq), claim) for seq, claim in enumerate(claims[:9])])
    (row,) = ask(catalogue, "SELECT * FROM ledger WHERE stream = 'weather'")
    assert row["dropped_count"] == row["expected_count"] == 900 * (2**53 + 1)
    fill(catalogue, [beat(seq, START + timedelta(minutes=seq), claim) for seq, claim in enumerate(claims)])
    (row,) = ask(catalogue, "SELECT * FROM ledger WHERE stream = 'weather'")
    assert row["dropped_count"] == row["expected_count"] == 9 * 10**18
    (row,) = ask(catalogue, "SELECT * FROM ledger WHERE stream = 'status'")
    assert row["expected_count"] == row["accepted_count"] == len(claims)


def test_since_a_moment_the_days_before_are_not_read(catalogue: duckdb.DuckDBPyConnection) -> None:
    """A gap two days old is no news, and the seqs before it are not taken for missing."""
    hours = [*range(0, 60, 3), 100, 101, 103]
    landed = [beat(number, START + timedelta(hours=number), [], max(0, number - 1)) for number in hours]
    fill(catalogue, landed)
    assert sum(row["missing_count"] for row in ask(catalogue, "SELECT * FROM ledger")) == 81
    since = START + timedelta(hours=101)
    for name in ("ledger", "missing_ranges"):
        later = ask(catalogue, f"SELECT * FROM {name}_since('{since.isoformat()}'::TIMESTAMPTZ) ORDER BY ALL")
        whole = ask(catalogue, f"SELECT * FROM {name} ORDER BY ALL")
        assert later == [row for row in whole if row["window_start"] >= since]
        assert sum(row["missing_count"] for row in later) == 1
