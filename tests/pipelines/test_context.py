"""Flags from the hour before: equal to a slow oracle, and a function of that hour alone."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts import payloads
from contracts.layout import Layout
from contracts.registry import save_registry
from contracts.schemas import FLAGS, TABLES
from contracts.times import MINUTE_US, from_us
from pipelines import graph
from pipelines.kernels import context
from pipelines.kernels.context import bounds, is_outside
from tests.pipelines.raw_log import BOOT, START, Landed, land, registry_file
from tests.pipelines.slow_context import Minute, Oracle
from tests.pipelines.test_lake import assert_same, setup_of

FIRST = int(START.timestamp()) // 60
POSTS = ("KT1001", "KT1002", "KT1003", "KT1004", "KT1005", "TS1001", "XX1001")
AREAS = {post: post[:2] for post in POSTS if post[:2] != "XX"}
QUANTITIES = ("temperature_c", "wind_direction_deg", "uv_index", "humidity_pct", "wind_speed_ms", "wind_gust_ms")
TESTS = {"spike", "step", "persistence", "consistency"}


def story(quantity: str, seed: str, minutes: int) -> dict[int, Minute]:
    """A post's minutes of one quantity: noise, spikes, a step, a stuck stretch, holes, minutes of several
    values; directions around north, and calm."""
    random, found = Random(seed), dict[int, Minute]()
    level, stuck_from, stuck = random.uniform(10, 90), random.randint(0, minutes - 80), 0.0
    front = Random(quantity).randint(0, minutes)  # all posts alike
    for minute in range(minutes):
        level += random.gauss(0.05, 0.3) + (8 if minute == front else 0)
        value = level + random.choice((0,) * 40 + (3, -5, 12))
        if quantity == "wind_direction_deg":
            value = random.choice((0, *[20 * value % 360] * 15))
        value = 0.0 if quantity == "uv_index" and int(seed[-1]) % 2 else round(value, 1)
        stuck = value if minute <= stuck_from else stuck
        is_stuck = stuck_from <= minute < stuck_from + 75
        value = stuck if is_stuck else value
        if random.random() < 0.08:
            continue
        other = value + (0 if is_stuck else random.choice((0, 0, 0, 0, 4)))
        found[minute] = (value, min(value, other), max(value, other))
    return found


def plain(stories: dict[tuple[str, str, int], Minute]) -> pl.DataFrame:
    rows = [
        (post, quantity, from_us((FIRST + minute) * MINUTE_US), 1, *values)
        for (post, quantity, minute), values in stories.items()
    ]
    return pl.DataFrame(rows, schema=context.PLAIN, orient="row").cast({"window_start": pl.Datetime("us", "UTC")})


def some_stories(seed: int, minutes: int = 150) -> dict[tuple[str, str, int], Minute]:
    return {
        (post, quantity, minute): values
        for quantity in QUANTITIES
        for post in POSTS
        for minute, values in story(quantity, f"{seed} {post} {quantity} {post[-1]}", minutes).items()
    }


def judged(frame: pl.DataFrame, minutes: Iterable[int]) -> pl.DataFrame:
    return context.flags(frame, [FIRST + minute for minute in minutes], AREAS).sort(FLAGS.key)


@pytest.mark.parametrize("seed", range(2))
def test_the_kernel_equals_a_slow_oracle(seed: int) -> None:
    stories = some_stories(seed)
    oracle = Oracle(stories, AREAS)
    wanted = range(60, 150)
    want = {
        (*row[:2], from_us((FIRST + row[2]) * MINUTE_US), *row[3:])
        for post in POSTS
        for quantity in QUANTITIES
        for minute in wanted
        for row in oracle.rows(post, quantity, minute)
    }
    got = judged(plain(stories), wanted)
    assert set(got.select("post_id", "quantity", "window_start", "test", "flag").rows()) == want
    assert {row[3] for row in want} == TESTS
    assert got["accepted_low"].null_count() == got.filter(pl.col("test") == "persistence").height


def test_a_minutes_flags_depend_on_its_hour_alone() -> None:
    """In spans of any length, in any order of rows, and of nothing but the minutes named: the same flags."""
    stories, random = some_stories(9, 200), Random(1)
    frame = plain(stories)
    whole = judged(frame, range(60, 200))
    assert_frame_equal(judged(frame.sample(fraction=1, shuffle=True, seed=3), range(60, 200)), whole)
    cuts = sorted({60, 200, *random.sample(range(61, 200), 5)})
    parts = [judged(frame, range(first, end)) for first, end in pairwise(cuts)]
    assert_frame_equal(pl.concat(parts).sort(FLAGS.key), whole)
    alone = []
    for minute in range(60, 200):
        at = (pl.col("window_start").dt.epoch("us") // MINUTE_US) - FIRST
        alone.append(judged(frame.filter(at.is_between(minute - 60, minute)), [minute]))
    assert_frame_equal(pl.concat(alone).sort(FLAGS.key), whole)
    scattered = random.sample(range(60, 200), 40)
    some = pl.col("window_start").is_in([from_us((FIRST + minute) * MINUTE_US) for minute in scattered])
    assert_frame_equal(judged(frame, scattered), whole.filter(some))


def one_story(quantity: str, values: Sequence[float | None], others: list[list[float]] | None = None) -> set[str]:
    """Tests that speak against the last of a post's minutes, beside neighbours in its area."""
    stories = {("KT1001", quantity, at): (value,) * 3 for at, value in enumerate(values) if value is not None}
    for number, other in enumerate(others or ()):
        stories |= {(f"KT20{number:02}", quantity, at): (value,) * 3 for at, value in enumerate(other)}
    areas = {post: "KT" for post, _, _ in stories}
    found = context.flags(plain(stories), [FIRST + len(values) - 1], areas)
    return set(found.filter(pl.col("post_id") == "KT1001")["test"].to_list())


def wobble(level: float, seed: int = 0, count: int = 60) -> list[float]:
    random = Random(seed)
    return [round(level + random.gauss(0, 0.1), 1) for _ in range(count)]


def test_what_stands_out_is_flagged_and_what_goes_on_is_not() -> None:
    calm = wobble(20)
    assert one_story("temperature_c", [*calm, 20.1]) == set()
    assert one_story("temperature_c", [*calm, 22.0]) == {"spike"}
    assert one_story("temperature_c", [*calm, 26.0]) == {"spike", "step"}
    rising = [20 + 0.3 * minute for minute in range(60)]
    assert one_story("temperature_c", [*rising, 38.0]) == set()
    assert one_story("temperature_c", [*rising, 36.5]) == {"spike"}
    # the way back from a spike is good
    assert one_story("temperature_c", [*calm[:-1], 30.0, calm[-1]]) == set()


def test_the_context_may_have_holes_but_not_be_empty() -> None:
    calm: list[float | None] = [*wobble(20)]
    with_holes = [None if at % 4 == 0 else value for at, value in enumerate(calm)]
    assert one_story("temperature_c", [*with_holes, 22.0]) == {"spike"}
    assert one_story("temperature_c", [*[None] * 52, *calm[52:], 22.0]) == set()
    assert one_story("temperature_c", [*calm[:55], *[None] * 5, 22.0]) == set()


def test_limits_widen_when_the_neighbours_move_too() -> None:
    calm = wobble(20)
    alone = [[*wobble(20, seed), 20.0] for seed in range(1, 9)]
    front = [[*wobble(20, seed), 17.6 + seed / 10] for seed in range(1, 9)]
    rising = [[*wobble(20, seed), 22.4] for seed in range(1, 9)]
    assert one_story("temperature_c", [*calm, 17.5], alone) == {"spike"}
    assert one_story("temperature_c", [*calm, 17.5], front) == set()
    assert one_story("temperature_c", [*calm, 17.5], front[:2]) == {"spike"}  # too few to say
    # neighbours that move the other way are no excuse
    assert one_story("temperature_c", [*calm, 17.5], rising) == {"spike"}


def test_north_is_no_jump_and_calm_air_has_no_direction() -> None:
    random = Random(5)
    around = [float(round(random.gauss(0, 8)) % 360 or 360) for _ in range(60)]
    assert one_story("wind_direction_deg", [*around, 5.0]) == set()
    assert one_story("wind_direction_deg", [*around, 352.0]) == set()
    assert one_story("wind_direction_deg", [*around, 150.0]) == {"spike"}
    assert one_story("wind_direction_deg", [*around, 0.0]) == set()


def test_only_what_cannot_stand_still_is_stuck() -> None:
    assert one_story("temperature_c", [20.0] * 60 + [20.0]) == {"persistence"}
    assert one_story("temperature_c", [20.0] * 30 + [25.0] + [20.0] * 30) == {"persistence"}  # and a spike
    assert one_story("temperature_c", [20.1] * 3 + [20.0] * 58) == set()
    assert one_story("humidity_pct", [100.0] * 61) == set()
    assert one_story("wind_speed_ms", [0.0] * 61) == set()
    assert one_story("wind_direction_deg", [0.0] * 61) == set()
    night = [[0.0] * 61] * 5
    day = [[3 + at / 30 for at in range(61)]] * 5
    assert one_story("uv_index", [0.0] * 61, night) == set()
    assert one_story("uv_index", [0.0] * 61, day) == {"persistence"}
    dawn = [[0.0] * 40 + [0.1] * 21] * 5
    assert one_story("uv_index", [0.0] * 61, dawn) == {"persistence"}
    assert one_story("uv_index", [3.0] * 61, night) == {"persistence"}


def wind(speeds: Sequence[float], gusts: Sequence[float]) -> set[tuple[str, str, int]]:
    """What is said of the last of a post's minutes."""
    pair = {"wind_speed_ms": speeds, "wind_gust_ms": gusts}
    stories = {("KT1001", name, at): (value,) * 3 for name, values in pair.items() for at, value in enumerate(values)}
    found = context.flags(plain(stories), [FIRST + len(speeds) - 1], {})
    return set(found.select("quantity", "test", "flag").rows())


def test_of_two_that_contradict_each_other_the_hour_clears_one() -> None:
    speeds, gusts = wobble(3), wobble(5, 1)
    assert wind([*speeds, 3.1], [*gusts, 5.1]) == set()
    assert wind([*speeds, 9.0], [*gusts, 5.1]) == {("wind_speed_ms", "spike", 3), ("wind_gust_ms", "consistency", 1)}
    assert wind([*speeds, 3.0], [*gusts, 0.5]) == {("wind_gust_ms", "spike", 3), ("wind_speed_ms", "consistency", 1)}
    # a spike that nothing contradicts clears nothing
    assert wind([*speeds, 3.0], [*gusts, 12.0]) == {("wind_gust_ms", "spike", 3)}
    # where the hour refuses both, or neither, both stay suspect
    assert wind([*speeds, 12.0], [*gusts, 11.0]) == {("wind_speed_ms", "spike", 3), ("wind_gust_ms", "spike", 3)}
    assert wind(wobble(5, 2), wobble(5, 3)) == set()
    # as where the hour cannot tell of one
    assert wind([*speeds, 9.0], [5.0] * 3 + [float("nan")] * 57 + [5.0]) == {("wind_speed_ms", "spike", 3)}


def test_a_cleared_value_is_used_and_one_beside_it_is_not(tmp_path: Path) -> None:
    """Over the whole way: what the message calls suspect counts once its hour has told which of the two is wrong, and
    no more once a late message takes that back."""
    landed = [weather(at, 3.0 + at % 3 / 10, 5.0 + at % 4 / 10) for at in range(60)]
    spike = weather(60, 9.0, 5.1)
    early = [row for row in landed if row.received < START + timedelta(minutes=50)]
    late = [row for row in landed if row.received >= START + timedelta(minutes=50)]
    whole = run_parts(tmp_path / "whole", [[*landed, spike]])
    last = whole["minutes"].filter(pl.col("window_start") == START + timedelta(minutes=60))
    assert dict(last.select("quantity", "value_count").iter_rows()) == {"wind_speed_ms": 0, "wind_gust_ms": 1}
    # of five minutes without a value the hour can tell nothing
    alone = run_parts(tmp_path / "alone", [[*early, spike]])["minutes"]
    assert alone.filter(pl.col("window_start") == START + timedelta(minutes=60))["value_count"].to_list() == [0, 0]
    assert_same(run_parts(tmp_path / "later", [[*early, spike], late]), whole)
    assert_same(run_parts(tmp_path / "first", [[spike], landed]), whole)
    # a late one as fast: it was no spike, and the gust is as suspect as the speed
    known, risen = landed[:59], [weather(59, 9.0, 9.2)]
    parts = run_parts(tmp_path / "back", [[*known, spike], risen])
    assert_same(parts, run_parts(tmp_path / "once", [[*known, *risen, spike]]))
    last = parts["minutes"].filter(pl.col("window_start") == START + timedelta(minutes=60))
    assert last["value_count"].to_list() == [0, 0]


def weather(minute: int, speed: float, gust: float) -> Landed:
    time = START + timedelta(minutes=minute, seconds=5)
    head = {"schema_version": 1, "boot_id": BOOT, "seq": minute, "first_seq": 0, "time": time}
    payload = payloads.encode(payloads.Weather(**head, wind_speed_ms=speed, wind_gust_ms=gust))  # type: ignore[arg-type]
    return Landed("lamplight/v1/KT1001/weather", payload, time + timedelta(seconds=1))


def test_values_are_outside_where_the_kernel_says_so() -> None:
    """The readings of a flagged minute and the kernel agree on which value its limits refuse."""
    stories = some_stories(2)
    found = bounds(judged(plain(stories), range(60, 150)))
    assert found.height > 50
    values = plain(stories).join(found, on=["post_id", "quantity", "window_start"])
    refused = values.with_columns(
        pl.any_horizontal(
            values.with_columns(value=pl.col(name)).select(
                is_outside(pl.col("quantity") == "wind_direction_deg").alias(name)
            )[name]
            for name in ("plain_last", "plain_min", "plain_max")
        ).alias("is_out")
    )
    assert refused["is_out"].all()


def long_log(seed: int) -> list[Landed]:
    """Two and a half hours of five neighbours' weather, with everything that the stories hold."""
    landed = []
    for post in POSTS[:5]:
        told = {name: story(name, f"{seed} {post} {name} {post[-1]}", 150) for name in QUANTITIES}
        seq = 0
        for minute in range(150):
            for second in (5, 35):
                values = {name: minutes[minute] for name, minutes in told.items() if minute in minutes}
                fields = {
                    name: min(99.0, max(1.0, value[0] if second == 35 else value[1])) for name, value in values.items()
                }
                if second == 5 and all(value[1] == value[0] for value in values.values()):
                    continue
                if not fields:
                    continue
                time = START + timedelta(minutes=minute, seconds=second)
                head = {"schema_version": 1, "boot_id": BOOT, "seq": seq, "first_seq": 0, "time": time}
                seq += 1
                payload = payloads.encode(payloads.Weather(**head, **fields))  # type: ignore[arg-type]
                landed.append(Landed(f"lamplight/v1/{post}/weather", payload, time + timedelta(seconds=1)))
    return landed


def run_parts(root: Path, parts: Iterable[list[Landed]]) -> dict[str, pl.DataFrame]:
    layout, at = Layout(root), 0
    save_registry(layout.registry, registry_file(POSTS[:5]))
    for part in parts:
        graph.run(setup_of(layout), [(land(layout, part, first=at),)])
        at += len(part)
    return {
        name: pl.read_delta(str(layout.table(name))).drop("revision", strict=False).sort(TABLES[name].identity)
        for name in ("observations", "minutes", "flags", "windows")
    }


def test_late_minutes_in_any_parts_give_the_flags_of_one_batch(tmp_path: Path) -> None:
    landed, random = long_log(3), Random(4)
    whole = run_parts(tmp_path / "whole", [landed])
    assert set(whole["flags"]["test"].to_list()) == TESTS
    assert (whole["minutes"]["value_count"] < whole["minutes"]["plain_count"]).any()
    random.shuffle(landed)
    cuts = [0, *sorted(random.sample(range(1, len(landed)), 3)), len(landed)]
    assert_same(run_parts(tmp_path / "parts", [landed[a:b] for a, b in pairwise(cuts)]), whole)
    landed.sort(key=lambda row: row.received)
    by_time = [landed[: len(landed) // 2], landed[len(landed) // 2 :]]
    assert_same(run_parts(tmp_path / "ticks", by_time), whole)
