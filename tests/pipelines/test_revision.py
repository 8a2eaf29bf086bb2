"""Judged again is as if judged for the first time: a rebuilt lake equals a fresh one, a replay moves what passes now,
and a crash in between only means doing it again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts import payloads
from contracts.layout import Layout, Positions
from contracts.registry import RegistryFile, save_registry
from contracts.schemas import TABLES
from contracts.topics import device_topic
from pipelines import again, graph, lake, recovery, revision
from pipelines.kernels import decode
from pipelines.kernels.rows import FRAME_OF
from tests.pipelines.crashes import dying_after
from tests.pipelines.raw_log import BOOT, START, Landed, land, make_root, registry_file
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables

MIDDLE = START + timedelta(minutes=16)
Patch = pytest.MonkeyPatch


def city_log(seed: int) -> list[Landed]:
    """The dirty log, wills of a gateway and late copies besides."""
    random, landed = Random(seed), dirty_log(seed)
    wills = [
        Landed(
            device_topic("GW0001", "status"),
            payloads.encode(payloads.Will(schema_version=1, boot_id=BOOT, connection=number, gateway_id="GW0001")),
            START + timedelta(minutes=minute),
        )
        for number, minute in ((1, 3), (1, 3.5), (2, 12))
    ]
    late = [Landed(row.topic, row.payload, row.received + timedelta(minutes=25)) for row in random.sample(landed, 25)]
    landed = [*landed, *wills, *late]
    random.shuffle(landed)
    return landed


def replaced(change: Callable[[Any], Any]) -> RegistryFile:
    """The registry with each post as `change` makes it; None takes it away."""
    posts = [change(post) for post in registry_file().lampposts]
    return RegistryFile(version=2, lampposts=tuple(post for post in posts if post is not None))


def of_first(**fields: Any) -> RegistryFile:
    """The registry with these fields of the first post changed."""
    return replaced(lambda post: msgspec.structs.replace(post, **fields) if post.post_id == "KT1001" else post)


def ended(patch: Patch) -> RegistryFile:
    return of_first(valid_to=MIDDLE)


def without_post(patch: Patch) -> RegistryFile:
    return replaced(lambda post: None if post.post_id == "KT1001" else post)


def without_sensor(patch: Patch) -> RegistryFile:
    return of_first(sensors=registry_file().lampposts[0].sensors[1:])


def without_direction_and_gateway(patch: Patch) -> RegistryFile:
    directions = registry_file().lampposts[0].directions[:1]
    return replaced(lambda post: msgspec.structs.replace(post, directions=directions, gateway_id=None))


def as_it_was(patch: Patch) -> RegistryFile:
    return registry_file()


def _changed(patch: Patch, **columns: pl.Expr) -> None:
    def changed(rows: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
        return lambda origin, messages: rows(origin.with_columns(**columns), messages)

    for stream, (table, rows) in list(FRAME_OF.items()):
        patch.setitem(FRAME_OF, stream, (table, changed(rows)))
    patch.setattr(decode, "DECODER_VERSION", payloads.DECODER_VERSION + 1)


def other_value(patch: Patch) -> RegistryFile:
    """A decoder to which every first_seq is one more."""
    _changed(patch, first_seq=pl.col("first_seq") + 1)
    return registry_file()


def other_time(patch: Patch) -> RegistryFile:
    """A decoder to which every reading was made half an hour later: all rows move to other blocks."""
    _changed(patch, event_time=pl.col("event_time") + 1_800_000_000)
    return registry_file()


@dataclass(frozen=True)
class Case:
    before: Callable[[Patch], RegistryFile]
    after: Callable[[Patch], RegistryFile]


CASES = {
    "post ended earlier": Case(as_it_was, ended),
    "post ended later": Case(ended, as_it_was),
    "post added": Case(without_post, as_it_was),
    "sensor added, post ended": Case(without_sensor, ended),
    "direction and gateway removed": Case(as_it_was, without_direction_and_gateway),
    "value decoded otherwise": Case(as_it_was, other_value),
    "time decoded otherwise": Case(as_it_was, other_time),
}


def lake_of(root: Path, landed: list[Landed], parts: int, file: RegistryFile) -> Layout:
    """A lake of messages that landed and were processed in parts."""
    layout = make_root(root)
    save_registry(layout.registry, file)
    size = -(-len(landed) // parts)
    for at in range(0, len(landed), size):
        graph.run(setup_of(layout), [(land(layout, landed[at : at + size], first=at),)])
    lake.versions(root)  # makes the tables that no row came for
    return layout


@pytest.mark.parametrize("name", CASES)
def test_a_rebuilt_lake_equals_a_fresh_one(tmp_path: Path, name: str, monkeypatch: Patch) -> None:
    case, landed = CASES[name], city_log(5)
    with monkeypatch.context() as patch:
        layout = lake_of(tmp_path / "old", landed, 2, case.before(patch))
    before = tables(layout.root)
    file = case.after(monkeypatch)
    save_registry(layout.registry, file)
    want = tables(lake_of(tmp_path / "fresh", landed, 1, file).root)
    with pytest.raises(AssertionError):
        assert_same(before, want)
    # copies of one message lie in several chunks
    monkeypatch.setattr(revision, "CHUNK_ROWS", 300)
    assert again.rebuild(setup_of(layout), None, is_dry=False) == 0
    assert_same(tables(layout.root), want)
    versions = lake.versions(layout.root)
    again.rebuild(setup_of(layout), None, is_dry=False)
    assert lake.versions(layout.root) == versions
    assert Positions.load(layout.positions).versions == versions


@pytest.mark.parametrize("survives", [1, 5, 14, 20])
def test_a_rebuild_that_dies_between_tables_heals(tmp_path: Path, survives: int, monkeypatch: Patch) -> None:
    landed = city_log(6)[:700]
    layout = lake_of(tmp_path / "old", landed, 2, ended(monkeypatch))
    file = other_time(monkeypatch)
    save_registry(layout.registry, file)
    monkeypatch.setattr(revision, "CHUNK_ROWS", 300)
    with dying_after(survives), pytest.raises(KeyboardInterrupt):
        again.rebuild(setup_of(layout), None, is_dry=False)
    if survives % 2:
        # whoever comes next mends the minutes, although it judges nothing again
        recovery.settle(setup_of(layout), Positions.load(layout.positions))
        found = tables(layout.root)
        minutes = decode_free_minutes(found)
        assert minutes == set(found["minutes"].select("post_id", "quantity", "window_start").rows())
    again.rebuild(setup_of(layout), None, is_dry=False)
    assert_same(tables(layout.root), tables(lake_of(tmp_path / "fresh", landed, 1, file).root))


def decode_free_minutes(found: dict[str, pl.DataFrame]) -> set[tuple[Any, ...]]:
    """Post, quantity and minute of every observation and crossing that counts."""
    crossings = found["footfall"].filter(~pl.col("is_conflicting"))
    names = ["post_id", "quantity", "event_time"]
    rows = pl.concat(
        [
            found["observations"].filter(~pl.col("is_conflicting")).select(names),
            crossings.with_columns(quantity=pl.lit("crossings_in_count")).select(names),
            crossings.with_columns(quantity=pl.lit("crossings_out_count")).select(names),
        ]
    )
    return set(rows.with_columns(pl.col("event_time").dt.truncate("1m")).rows())


def test_rows_older_than_the_raw_log_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    landed = sorted(city_log(7), key=lambda row: row.received)
    layout = lake_of(tmp_path, landed, 2, registry_file())
    before = tables(tmp_path)
    first, second = sorted((layout.raw / "a").rglob("*.arrow"))
    first.unlink()
    save_registry(layout.registry, without_post(pytest.MonkeyPatch()))
    again.rebuild(setup_of(layout), None, is_dry=False)
    now = tables(tmp_path)
    # what retention has taken is what it was, what it has left is judged by today's registry
    left = {(row.topic, payloads.digest(row.payload)) for row in landed[-(-len(landed) // 2) :]}
    for name in ("observations", "lane_flows", "device_status"):
        streams = pl.col("stream") if name == "observations" else pl.lit({"lane_flows": "traffic"}.get(name, "status"))
        old = before[name].with_columns(
            topic=pl.format("lamplight/v1/{}/{}", "post_id", streams),
        )
        is_judged = [key in left for key in old.select("topic", "digest").rows()]
        stays = old.filter(~pl.Series(is_judged) | (pl.col("post_id") != "KT1001")).drop("topic")
        assert stays.drop("is_conflicting").equals(now[name].drop("is_conflicting")), name
        assert stays.height < old.height
    assert second.exists()


def test_a_replay_moves_what_passes_now(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Patch) -> None:
    landed = city_log(8)
    layout = lake_of(tmp_path / "old", landed, 2, without_post(monkeypatch))
    save_registry(layout.registry, registry_file())
    want = tables(lake_of(tmp_path / "fresh", landed, 1, registry_file()).root)
    setup = setup_of(layout)
    before = tables(layout.root)
    versions = lake.versions(layout.root)
    again.replay_quarantine(setup, ["unknown_post"], None, is_dry=True)
    said = capsys.readouterr().out
    unknown = before["quarantine"].filter(pl.col("reason") == "unknown_post")
    passing = unknown.filter(pl.col("post_id") == "KT1001").unique(["topic", "digest"]).height
    messages = unknown.unique(["topic", "digest"]).height
    assert (
        said.split()
        == (
            f"unknown_post {unknown.height:,} rows {messages:,} messages {passing:,} would pass; the rest: "
            f"unknown_post {messages - passing}"
        ).split()
    )
    assert lake.versions(layout.root) == versions
    again.replay_quarantine(setup, ["malformed"], None, is_dry=False)
    assert lake.versions(layout.root) == versions
    monkeypatch.setattr(revision, "CHUNK_ROWS", 100)
    again.replay_quarantine(setup, ["unknown_post"], START + timedelta(hours=3), is_dry=False)
    assert lake.versions(layout.root) == versions
    for survives in (1, 4, 9):
        with dying_after(survives), pytest.raises(KeyboardInterrupt):
            again.replay_quarantine(setup, ["unknown_post"], None, is_dry=False)
        # nothing is in neither place
        assert held(tables(layout.root)) == held(before)
    again.replay_quarantine(setup, [], None, is_dry=False)
    assert_same(tables(layout.root), want)


def held(found: dict[str, pl.DataFrame]) -> set[int]:
    """Digests that any table of messages holds."""
    return {digest for frame in found.values() if "digest" in frame.columns for digest in frame["digest"].to_list()}


def test_what_stays_in_quarantine_says_todays_reason(tmp_path: Path, monkeypatch: Patch) -> None:
    layout = lake_of(tmp_path, city_log(9)[:300], 1, without_post(monkeypatch))
    save_registry(layout.registry, of_first(sensors=()))
    monkeypatch.setattr(decode, "DECODER_VERSION", 77)
    again.replay_quarantine(setup_of(layout), ["unknown_post"], None, is_dry=False)
    rows = tables(tmp_path)["quarantine"]
    first = rows.filter(pl.col("post_id") == "KT1001", pl.col("reason") != "malformed")
    assert set(first["reason"]) == {"unknown_sensor"}
    assert set(first["decoder_version"]) == {77}
    assert 77 not in set(rows.filter(pl.col("reason") == "malformed")["decoder_version"])


def test_a_dry_rebuild_tells_what_a_rebuild_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    layout = lake_of(tmp_path, city_log(10), 2, without_sensor(monkeypatch))
    save_registry(layout.registry, ended(monkeypatch))
    monkeypatch.setattr(revision, "CHUNK_ROWS", 250)
    before = tables(tmp_path)
    again.rebuild(setup_of(layout), None, is_dry=True)
    told: dict[tuple[str, str], int] = {}
    for line in capsys.readouterr().out.splitlines():
        table, kind, rows = line.split()[:3]
        told[table, kind] = told.get((table, kind), 0) + int(rows.replace(",", ""))
    assert_same(tables(tmp_path), before)
    again.rebuild(setup_of(layout), None, is_dry=False)
    after = tables(tmp_path)
    for name, frame in after.items():
        if "digest" not in frame.columns:
            continue
        key = list(TABLES[name].identity)
        added = frame.join(before[name], on=key, how="anti").height
        removed = before[name].join(frame, on=key, how="anti").height
        assert (told.get((name, "added"), 0), told.get((name, "removed"), 0)) == (added, removed), name
    assert told["observations", "added"] > 0 < told["lane_flows", "removed"]
