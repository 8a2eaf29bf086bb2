"""What is announced as final and what changes after that, in a lake: laws of restarts, crashes and late arrivals."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts.layout import Positions, Segment
from contracts.payloads import DECODERS, Birth, Heartbeat, PreviousBoot, SeqRange, Weather, encode
from contracts.registry import save_registry
from contracts.schemas import ANNOUNCEMENTS, TABLES
from contracts.settings import SettingError
from contracts.times import to_us
from contracts.topics import device_topic
from pipelines import again, graph, housekeeping, lake, live, stages
from pipelines.announcements import announce, final_through
from pipelines.config import from_environment, parser
from pipelines.finality import Finality
from pipelines.metrics import Metrics
from tests.pipelines.crashes import dying_after
from tests.pipelines.raw_log import BOOT, POSTS, START, Landed, land, make_root, messages, registry_file
from tests.pipelines.test_finality import POST, at
from tests.pipelines.test_lake import setup_of
from tests.pipelines.test_live import config_of


def announced(root: Path) -> list[tuple[str, datetime, str]]:
    rows = lake.read_blocks(
        lake.newest_version(root, "announcements"),
        ANNOUNCEMENTS,
        range(to_us(START) // 60_000_000 - 90, to_us(START) // 60_000_000 + 300),
    )
    return sorted(rows.select("stream", "final_through", "reason").rows())


def windows(root: Path, name: str = "windows") -> pl.DataFrame:
    table = TABLES[name]
    return pl.scan_delta(lake.open_table(root, name)).collect().sort(table.key)


def revisions(root: Path, name: str = "windows") -> set[tuple[datetime, int]]:
    return set(windows(root, name).select("window_start", "revision").rows())


class City:
    """A lake and its announcer; messages land in segments, one at a time."""

    def __init__(self, root: Path):
        self.layout = make_root(root)
        self.setup = setup_of(self.layout)
        self.offset = 0
        self.finality = Finality(self.setup, 3600)

    def land(self, *landed: Landed, is_processed: bool = True) -> None:
        segment = land(self.layout, landed, first=self.offset)
        self.offset += len(landed)
        if is_processed:
            graph.run(self.setup, [(segment,)])

    def look(self, minute: float) -> None:
        while not self.finality.look(to_us(at(minute))) and not self.finality.is_caught_up:
            pass


def told(row: Landed) -> object:
    return DECODERS[row.topic.rsplit("/", 1)[1]].decode(row.payload)


def is_late(row: Landed) -> bool:
    """The weather of the second minute and the traffic of its first half, of one post."""
    return POST in row.topic and row.topic.endswith(("weather", "traffic")) and told(row).time == at(2)  # type: ignore[attr-defined]


LOG = messages(3, minutes=12)
LATE = [row for row in LOG if is_late(row)]
REST = [row for row in LOG if not is_late(row)]


def report(*streams: str) -> Landed:
    """A heartbeat that gives up the late message of these streams."""
    seqs = {row.topic.rsplit("/", 1)[1]: told(row).seq for row in LATE}  # type: ignore[attr-defined]
    gone = [SeqRange(boot_id=BOOT, stream=one, first_seq=seqs[one], last_seq=seqs[one]) for one in streams]  # type: ignore[arg-type]
    beat = Heartbeat(schema_version=1, boot_id=BOOT, seq=12, first_seq=0, time=at(12), firmware="1.0", dropped=gone)
    return Landed(device_topic(POST, "status"), encode(beat), at(12.5))


def test_a_stream_with_a_gap_waits_for_it_or_for_the_grace(tmp_path: Path) -> None:
    city = City(tmp_path)
    city.land(*REST)
    city.look(13)
    until = {"air": at(10), "pedestrian": at(10), "traffic": at(0), "weather": at(0)}
    assert final_through(tmp_path) == until
    assert (("air", at(10), "contiguous") in announced(tmp_path), len(announced(tmp_path))) == (True, 4)
    city.land(report("weather"))
    city.look(14)
    assert final_through(tmp_path) == until | {"weather": at(10)}
    city.look(70.5)
    # nobody was heard for an hour, and nothing but the grace is left
    late = [row for row in announced(tmp_path) if row[0] == "traffic"]
    assert late == [("traffic", at(0), "contiguous"), ("traffic", at(10), "grace")]
    city.look(69)
    assert final_through(tmp_path) == dict.fromkeys(until, at(10))


@pytest.fixture
def city(tmp_path: Path) -> City:
    """Everything is final until ten minutes after the start, and two messages are late."""
    city = City(tmp_path)
    city.land(*REST, report("traffic", "weather"))
    city.look(13)
    assert final_through(tmp_path) == dict.fromkeys(("air", "pedestrian", "traffic", "weather"), at(10))
    assert revisions(tmp_path) == {(at(0), 0), (at(5), 0), (at(10), 0)}
    return city


def late_rows(root: Path) -> pl.DataFrame:
    rows = windows(root).select("post_id", "quantity", "window_start", "revision")
    return rows.filter(pl.col("revision") > 0)


def test_a_late_arrival_is_one_revision_of_what_it_changes(city: City) -> None:
    before = windows(city.layout.root).drop("revision")
    city.land(*LATE)
    root = city.layout.root
    changed = windows(root).drop("revision").join(before, on=before.columns, how="anti", nulls_equal=True)
    late = late_rows(root)
    assert set(late["revision"]) == {1}
    assert set(late["post_id"]) == {POST}
    final = changed.select("post_id", "quantity", "window_start").filter(pl.col("window_start") < at(10))
    assert_frame_equal(late.drop("revision"), final)
    # a window that is not final yet may change without a word
    assert set(windows(root).filter(pl.col("window_start") == at(10))["revision"]) == {0}
    assert revisions(root, "flow_windows") == {(at(0), 0)}
    of_hours = windows(root).group_by("post_id", "quantity", pl.col("window_start").dt.truncate("1h"))
    assert_frame_equal(
        windows(root, "hours").select("post_id", "quantity", "window_start", "revision"),
        of_hours.agg(pl.col("revision").sum()).sort("post_id", "quantity", "window_start"),
    )
    again = windows(root)
    city.offset -= len(LATE)
    city.land(*LATE)
    city.look(14)
    blocks = set(range(to_us(START) // 60_000_000, to_us(START) // 60_000_000 + 12))
    for block in blocks:
        stages.make_windows(city.setup, "minutes", {block})
    assert_frame_equal(windows(root), again)


def test_each_change_of_a_row_is_one_revision(city: City) -> None:
    """Two late messages of one window in two ticks change it twice, in one tick once; equal copies never."""
    first, second = (
        Landed(device_topic(POST, "weather"), encode(weather), at(15))
        for weather in (
            Weather(schema_version=1, boot_id=BOOT, seq=2, first_seq=0, time=at(2), temperature_c=20.0),
            Weather(schema_version=1, boot_id="00000000000000b2", seq=0, first_seq=0, time=at(3.5), temperature_c=20.5),
        )
    )
    city.land(first, first)
    city.land(first)
    city.land(second)
    late = late_rows(city.layout.root).filter(pl.col("quantity") == "temperature_c", pl.col("window_start") == START)
    assert late["revision"].to_list() == [2]


def test_what_is_judged_again_is_a_revision_once(city: City) -> None:
    root = city.layout.root
    row = next(row for row in LOG if POST in row.topic and row.topic.endswith("weather"))
    city.land(Landed(device_topic("KT9009", "weather"), row.payload, at(13)))
    assert late_rows(root).is_empty()
    save_registry(city.layout.registry, registry_file((*POSTS, "KT9009")))
    for _ in range(2):
        assert again.replay_quarantine(city.setup, [], None, is_dry=False) == 0
        assert again.rebuild(city.setup, None, is_dry=False) == 0
        late = late_rows(root)
        assert (set(late["post_id"]), set(late["revision"])) == ({"KT9009"}, {1})


def test_a_row_that_appears_after_the_announcement_begins_with_one(city: City) -> None:
    uv = Weather(schema_version=1, boot_id="00000000000000b2", seq=0, first_seq=0, time=at(3.5), uv_index=1.0)
    city.land(Landed(device_topic(POST, "weather"), encode(uv), at(15)))
    assert late_rows(city.layout.root).select("quantity", "revision").rows() == [("uv_index", 1)]


@pytest.mark.parametrize("survives", range(7))
def test_a_crash_between_any_two_tables_is_no_further_revision(city: City, survives: int) -> None:
    root = city.layout.root
    city.land(*LATE, is_processed=False)
    segment = Segment("a", city.offset - len(LATE), city.offset - 1)
    with dying_after(survives), pytest.raises((KeyboardInterrupt, RuntimeError)):
        graph.run(city.setup, [(segment,)])
    lake.forget()
    graph.run(city.setup, [(segment,)])
    assert set(late_rows(root)["revision"]) == {1}


def test_announcements_stay_after_crashes_restarts_and_joining(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    root = city.layout.root
    before = announced(root)
    for _ in range(2):
        lake.forget()
        city.finality = Finality(city.setup, 3600)
        city.look(13)
        assert announced(root) == before
    rows = pl.scan_delta(lake.open_table(root, "announcements")).collect()
    announce(root, rows.with_columns(announced_time=pl.lit(START).cast(rows.schema["announced_time"])))
    assert_frame_equal(pl.scan_delta(lake.open_table(root, "announcements")).collect(), rows, check_row_order=False)
    monkeypatch.setattr(housekeeping, "MANY_FILES", 1)
    assert housekeeping.compact(root, ANNOUNCEMENTS, to_us(START)) == 1
    assert lake.count_files(root, "announcements") == 1
    assert announced(root) == before
    assert final_through(root)["air"] == at(10)


def test_wills_and_refused_messages(tmp_path: Path) -> None:
    """What is refused has landed; a post of which only the broker speaks is silent."""
    city = City(tmp_path)
    refused = [row for row in LATE if "weather" in row.topic]
    broken = [
        Landed(row.topic, row.payload.replace(b'"temperature_c"', b'"unheard_of"'), row.received) for row in refused
    ]
    will = b'{"schema_version":1,"boot_id":"%s","connection":0,"kind":"will"}' % BOOT.encode()
    city.land(*REST, *broken, Landed(device_topic("KT1001", "status"), will, at(12)))
    city.look(13)
    assert final_through(tmp_path)["weather"] == at(10)
    assert windows(tmp_path).height
    assert lake.count_rows(tmp_path, "quarantine") == 1


def test_a_birth_that_its_clock_speaks_against_still_tells_how_the_boot_before_ended(tmp_path: Path) -> None:
    city, boot = City(tmp_path), "00000000000000b2"
    highest = {told(row).seq for row in LOG if POST in row.topic and row.topic.endswith("weather")}  # type: ignore[attr-defined]
    birth = Birth(
        schema_version=1,
        boot_id=boot,
        seq=0,
        first_seq=0,
        time=at(600),
        firmware="1.0",
        previous=PreviousBoot(boot_id=BOOT, highest_seq={"weather": max(highest) + 1}),
    )
    first = Weather(schema_version=1, boot_id=boot, seq=0, first_seq=0, time=at(14), temperature_c=20.0)
    last = Weather(schema_version=1, boot_id=BOOT, seq=max(highest) + 1, first_seq=0, time=at(12), temperature_c=20.0)
    rest = [row for row in LOG if POST in row.topic or not row.topic.endswith("weather")]
    city.land(*rest, Landed(device_topic(POST, "status"), encode(birth), at(13.5)))
    city.land(Landed(device_topic(POST, "weather"), encode(first), at(14)))
    city.look(14.5)
    assert final_through(tmp_path)["weather"] == at(10)
    later = Weather(schema_version=1, boot_id=boot, seq=1, first_seq=0, time=at(15), temperature_c=20.0)
    city.land(Landed(device_topic(POST, "weather"), encode(later), at(15)))
    assert not city.finality.look(to_us(at(15.5)))
    city.land(Landed(device_topic(POST, "weather"), encode(last), at(16)))
    assert city.finality.look(to_us(at(16.5)))
    assert final_through(tmp_path)["weather"] == at(15)


def test_a_drained_log_is_announced_and_claimed(tmp_path: Path) -> None:
    """`run --once`: by the grace, because the log is old, and once."""
    layout = make_root(tmp_path)
    land(layout, [Landed(row.topic, row.payload, row.received) for row in messages(3, minutes=2)])
    for _ in range(2):
        metrics = Metrics(layout.raw)
        assert live._run(config_of(tmp_path), metrics, live.StopFlag()) == 0
        rows = pl.scan_delta(lake.open_table(tmp_path, "announcements")).collect()
        assert Positions.load(layout.positions).versions["announcements"] == lake.versions(tmp_path)["announcements"]
        assert rows.filter(pl.struct(ANNOUNCEMENTS.key).is_duplicated()).is_empty()
        for stream in ("air", "pedestrian", "traffic", "weather"):
            name = "lamplight_pipelines_final_through_timestamp_seconds"
            newest = final_through(tmp_path)[stream].timestamp()
            assert metrics.registry.get_sample_value(name, {"stream": stream}) == newest
    with pytest.raises(SettingError, match="LAMPLIGHT_FINAL_GRACE_S"):
        from_environment({"LAMPLIGHT_FINAL_GRACE_S": "0"}, parser().parse_args(["run", "--data", str(tmp_path)]))
