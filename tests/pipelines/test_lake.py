"""The lake is a function of the set of landed messages: split, order, repetition and crashes change no table."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random

import polars as pl
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from contracts.layout import Layout, Positions
from contracts.payloads import digest
from contracts.schemas import BY_ARRIVAL, OBSERVATIONS, TABLES
from pipelines import came, files, graph, housekeeping, lake, stages
from pipelines.kernels.unite import unite
from pipelines.log import chunks, new_segments, passed, rewound
from pipelines.sparse import whole
from pipelines.stages import Setup
from tests.pipelines.crashes import dying_after
from tests.pipelines.raw_log import Landed, land, make_root, messages


def setup_of(layout: Layout, is_sole_owner: bool = False) -> Setup:
    return Setup(root=layout.root, registry=layout.registry, is_sole_owner=is_sole_owner)


def tables(root: Path) -> dict[str, pl.DataFrame]:
    """Every table without what depends on the way the data came: revisions and announcements."""
    found = {}
    for name, table in TABLES.items():
        if name in BY_ARRIVAL:
            continue
        frame = pl.scan_delta(DeltaTable(str(Layout(root).table(name)))).collect()
        columns = [column for column in table.schema.names if column not in BY_ARRIVAL]
        found[name] = whole(frame, table).select(columns).sort(table.identity)
    return found


def assert_same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> None:
    for name, frame in one.items():
        assert_frame_equal(frame, other[name], check_exact=True)


def dirty_log(seed: int) -> list[Landed]:
    """Messages with equal copies, differing copies, broken bytes and unknown posts among them."""
    random = Random(seed)
    # longer than a counter's context, with holes in it
    landed = [row for row in messages(seed, minutes=32) if "weather" not in row.topic or random.random() < 0.5]
    more = [Landed(row.topic, row.payload, row.received + timedelta(seconds=40)) for row in random.sample(landed, 20)]
    more += [
        Landed(row.topic, row.payload.replace(b'"seq":3,', b'"seq":4,'), row.received)
        for row in random.sample(landed, 40)
    ]
    more += [Landed(row.topic, row.payload[: random.randint(0, 90)], row.received) for row in random.sample(landed, 9)]
    more += [Landed(row.topic.replace("KT", "ZZ"), row.payload, row.received) for row in random.sample(landed, 9)]
    return landed + more


def run_in_parts(root: Path, landed: list[Landed], random: Random, is_sole_owner: bool = False) -> Layout:
    """Land and process the messages in random parts, some parts twice."""
    layout = make_root(root)
    setup = setup_of(layout, is_sole_owner)
    at = 0
    while at < len(landed):
        size = random.randint(1, len(landed) // 3)
        segment = land(layout, landed[at : at + size], first=at)
        graph.run(setup, [(segment,)])
        if random.random() < 0.4:
            graph.run(setup, [(segment,)])
        at += size
    return layout


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """All of the dirty log in one segment and one run."""
    layout = make_root(tmp_path_factory.mktemp("batch"))
    landed = dirty_log(1)
    graph.run(setup_of(layout), [(land(layout, landed),)])
    found = tables(layout.root)
    assert all(not frame.is_empty() for name, frame in found.items() if name != "flags")
    return found


@pytest.mark.parametrize(("seed", "is_sole_owner"), [(0, False), (1, True), (2, False), (3, True)])
def test_live_by_ticks_equals_batch(
    tmp_path: Path, batch: dict[str, pl.DataFrame], seed: int, is_sole_owner: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, landed = Random(seed), dirty_log(1)
    if seed > 1:  # else each part has more blocks
        monkeypatch.setattr(came, "MOST_BLOCKS", 100)
    random.shuffle(landed)
    assert_same(tables(run_in_parts(tmp_path, landed, random, is_sole_owner).root), batch)


def test_duplicates_are_the_copies_of_readings_but_the_first(tmp_path: Path) -> None:
    landed = dirty_log(1)
    layout = run_in_parts(tmp_path, landed, Random(3), is_sole_owner=True)
    raw = pl.DataFrame([(row.topic, row.payload, row.received) for row in landed], orient="row").unique()
    raw.columns = ["topic", "payload", "received_time"]
    found = tables(layout.root)
    refused = found["quarantine"].select("topic", "payload").unique()
    accepted = raw.join(refused, on=["topic", "payload"], how="anti")
    extra = accepted.filter(pl.col("received_time") > pl.col("received_time").min().over("topic", "payload"))
    want = [(topic, digest(payload), received) for topic, payload, received in extra.rows()]
    got = found["duplicates"].select(
        pl.format("lamplight/v1/{}/{}", "post_id", "stream"), "digest", pl.col("received_time")
    )
    assert sorted(got.rows()) == sorted(want)
    assert len(want) > 10


def test_a_second_run_commits_nothing(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    segment = land(layout, dirty_log(2))
    graph.run(setup_of(layout), [(segment,)])
    before = lake.versions(tmp_path)
    graph.run(setup_of(layout), [(segment,)])
    assert lake.versions(tmp_path) == before


@pytest.mark.parametrize("survives", range(10))
def test_a_crash_between_any_two_tables_heals(tmp_path: Path, batch: dict[str, pl.DataFrame], survives: int) -> None:
    """The process dies after `survives` commits, before the positions are stored; the work is done again. Every other
    one is the only owner of the lake and appends."""
    layout, landed = make_root(tmp_path), dirty_log(1)
    segments = [land(layout, landed[:100], first=0), land(layout, landed[100:], first=100)]
    setup = setup_of(layout, is_sole_owner=survives % 2 == 1)
    with dying_after(survives) as life, pytest.raises((KeyboardInterrupt, RuntimeError)):
        graph.run(setup, [tuple(segments)])
    assert life.commits == survives
    graph.run(setup, [(segment,) for segment in segments])
    assert_same(tables(tmp_path), batch)


def test_an_owner_appends_what_is_new_and_rewrites_what_changes(tmp_path: Path) -> None:
    layout, landed = make_root(tmp_path), messages(5, minutes=1)
    whole = stages.decode(setup_of(layout), [land(layout, landed)])["observations"]
    owner = setup_of(layout, is_sole_owner=True)
    stages.unite_blocks(owner, "observations", [whole.slice(0, 5)])
    first = set(lake.open_table(tmp_path, "observations").file_uris())
    stages.unite_blocks(owner, "observations", [whole])
    assert first < set(lake.open_table(tmp_path, "observations").file_uris())
    received = whole.schema.get_field_index("received_time")
    later, earlier = (
        whole.set_column(received, "received_time", pc.add(whole["received_time"], timedelta(seconds=shift)))
        for shift in (9, -9)
    )
    before = lake.versions(tmp_path)["observations"]
    stages.unite_blocks(owner, "observations", [later])
    assert lake.versions(tmp_path)["observations"] == before
    # an equal message that was received earlier is the one that stays
    stages.unite_blocks(owner, "observations", [earlier])
    want = unite(pl.DataFrame(whole), pl.DataFrame(earlier), OBSERVATIONS)
    got = pl.scan_delta(DeltaTable(str(layout.table("observations")))).collect()
    assert_frame_equal(got, want, check_row_order=False)
    assert lake.count_rows(tmp_path, "duplicates") == 2 * len(set(whole["digest"].to_pylist()))


def race(layout: Layout, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `act` commit through a handle of its own between our reading and our writing, once."""
    raced = False

    def late(*args: object) -> int:
        nonlocal raced
        if not raced:
            raced = True
            act()
        return put(*args)  # type: ignore[arg-type]

    put = lake.put
    monkeypatch.setattr(lake, "put", late)


def test_two_writers_on_one_block_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, landed = make_root(tmp_path), messages(4, minutes=2)
    whole = stages.decode(setup_of(layout), [land(layout, landed)])["observations"]
    mine, theirs = whole.slice(0, whole.num_rows // 2), whole.slice(whole.num_rows // 2)

    def other_writer() -> None:
        path = layout.table("observations")
        handle = DeltaTable(str(path))
        existing = pl.scan_delta(handle).collect()
        rows = unite(existing, pl.DataFrame(theirs), OBSERVATIONS)
        write_deltalake(handle, rows.to_arrow().cast(OBSERVATIONS.schema), mode="overwrite")

    stages.unite_blocks(setup_of(layout), "observations", [mine.slice(0, 1)])
    race(layout, other_writer, monkeypatch)
    stages.unite_blocks(setup_of(layout), "observations", [mine])
    got = pl.scan_delta(DeltaTable(str(layout.table("observations")))).collect()
    want = unite(pl.DataFrame(whole).clear(), pl.DataFrame(whole), OBSERVATIONS)
    assert_frame_equal(got.sort(want.columns), want.sort(want.columns))


def test_compaction_changes_no_row_and_leaves_few_files(
    tmp_path: Path, batch: dict[str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    landed = dirty_log(1)
    monkeypatch.setattr(housekeeping, "MANY_FILES", 2)
    layout = make_root(tmp_path)
    for at in range(0, len(landed), 60):
        graph.run(setup_of(layout), [(land(layout, landed[at : at + 60], first=at),)])
    a_day_later = 86_400_000_000 + int(landed[0].received.timestamp() * 1e6)
    assert housekeeping.compact(tmp_path, OBSERVATIONS, int(landed[0].received.timestamp() * 1e6)) == 0
    housekeeping.compact_all(tmp_path, a_day_later)
    housekeeping.vacuum(tmp_path)
    assert_same(tables(tmp_path), batch)
    assert len(DeltaTable(str(layout.table("observations"))).file_uris()) == 1


def test_positions_round_trip_and_rewind(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    landed = messages(1, minutes=2)
    segments = [land(layout, landed[at : at + 10], first=at) for at in range(0, 40, 10)]
    assert new_segments(layout.raw, {}) == (segments, True)
    assert new_segments(layout.raw, {"a": 20}) == (segments[2:], True)
    part, is_all = new_segments(layout.raw, {}, limit_rows=15)
    assert (part, is_all) == (segments[:2], False)
    assert [len(group) for group in chunks(segments)] == [4]
    assert passed({}, segments) == {"a": 40}
    assert rewound(layout.raw, {"a": 40}, since_s=0) == {"a": 0}
    assert rewound(layout.raw, {"a": 40}, since_s=4e9) == {"a": 40}
    positions = Positions(offsets={"a": 40}, versions={"observations": 3}, covered_us=5)
    positions.store(layout.positions)
    assert Positions.load(layout.positions) == positions


def test_files_known_by_the_log_entries_are_those_that_delta_lists(tmp_path: Path) -> None:
    landed = dirty_log(4)
    Random(4).shuffle(landed)
    layout, setup = make_root(tmp_path), setup_of(make_root(tmp_path))
    for at in range(0, len(landed), 200):
        graph.run(setup, [(land(layout, landed[at : at + 200], first=at),)])
        if at % 400:
            housekeeping.compact_all(tmp_path, 2**62)
        for name, table in TABLES.items():
            pinned = lake.newest_version(tmp_path, name)
            assert sorted(files.listed(pinned, table)) == sorted(files._asked(pinned, table))
    assert lake.count_files(tmp_path, "observations") > 0
