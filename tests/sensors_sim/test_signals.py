"""Signals are functions of (seed, post, quantity, time), and the city behaves as a city."""

from datetime import datetime
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.quality import AT_LEAST, ZERO_TOGETHER
from contracts.quantities import QUANTITIES
from contracts.times import HONG_KONG, US, to_us
from sensors_sim import roads, showers, sky, streets
from sensors_sim.city import City, city_of
from sensors_sim.fleet import build
from sensors_sim.hashing import Floats, Ints
from sensors_sim.signals import SIGNALS, value

CITY = city_of(build(80, 1, False).lampposts, 3)
ALL = np.arange(80)


def at(text: str) -> int:
    """Microseconds of a Hong Kong time."""
    return to_us(datetime.fromisoformat(text).replace(tzinfo=HONG_KONG))


FRIDAY, SATURDAY = "2026-11-20", "2026-11-21"
NIGHT, MORNING, NOON = at(f"{FRIDAY}T03:00"), at(f"{FRIDAY}T08:30"), at(f"{FRIDAY}T12:30")


def everything(city: City, posts: Ints, half_minutes: Ints) -> list[Floats]:
    """All that a batch of (post, time) is worth, one array per figure."""
    time_us = half_minutes * 30 * US
    lanes = roads.lane_summaries(city, posts, time_us)
    per_message = [
        np.array([column[lanes.message == row].sum() for row in range(len(posts))])
        for column in (lanes.vehicles, lanes.release_sum, lanes.inverse_h_km, lanes.occupancy_pct)
    ]
    steps = streets.crossings(city, posts, time_us)
    return [*(value(city, name, posts, time_us + 1_234_567) for name in SIGNALS), *per_message, *steps]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 79), st.integers(57_000_000, 60_000_000)), min_size=2, max_size=40),
    st.data(),
)
def test_no_value_depends_on_the_batch_or_its_order(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    posts, times = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    whole = everything(CITY, posts, times)
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    cut = data.draw(st.integers(1, len(rows) - 1))
    parts = [everything(CITY, posts[part], times[part]) for part in (order[:cut], order[cut:])]
    for figure, before in enumerate(whole):
        after = np.concatenate([part[figure] for part in parts])
        assert np.array_equal(after, before[order])


def test_a_post_is_the_same_in_any_fleet() -> None:
    alone = city_of(tuple(CITY.posts[5:6]), 3)
    times = np.arange(100) * 37 * US + NOON
    for name in SIGNALS:
        assert np.array_equal(
            value(alone, name, np.zeros(100, np.int64), times), value(CITY, name, np.full(100, 5), times)
        )


def test_another_seed_is_another_city() -> None:
    other = city_of(CITY.posts, 4)
    times = np.full(80, NOON)
    for name in SIGNALS:
        if name != "rain_mm":
            assert not np.array_equal(value(other, name, ALL, times), value(CITY, name, ALL, times))


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_values_are_plausible_over_a_year(name: str) -> None:
    times = np.arange(80) * (365 * sky.DAY_US // 80) + NOON
    found = value(CITY, name, ALL, times)
    assert np.isfinite(found).all()
    assert (found >= QUANTITIES[name].low).all()
    assert (found <= QUANTITIES[name].high).all()


def passed(lanes: Ints, time_us: int) -> roads.Passages:
    posts = np.searchsorted(CITY.lane_first, lanes, side="right") - 1
    while (CITY.lane_count[posts] == 0).any():  # posts without lanes share their first lane with the next
        posts = np.where(CITY.lane_count[posts] == 0, posts - 1, posts)
    return roads.passages(CITY, lanes, posts, np.full(len(lanes), time_us))


def test_lane_summaries_are_their_passages() -> None:
    """Counts, means and the release sum, one passage at a time in plain Python."""
    summaries = roads.lane_summaries(CITY, ALL, np.full(80, MORNING))
    lanes = np.arange(len(CITY.lane_keys))
    single = passed(lanes, MORNING)
    without_speed = 0
    for lane in lanes.tolist():
        kinds = single.kind[single.row == lane].tolist()
        speeds = single.speed_kmh[single.row == lane].tolist()
        taken = [v for v in speeds if not np.isnan(v)]
        without_speed += len(speeds) - len(taken)
        lo, hi = round(CITY.release_lo[lane]), round(CITY.release_hi[lane])
        clamped = [min(max(round(v), lo), hi) - int(CITY.release_centre[lane]) for v in taken]
        assert summaries.vehicles[lane] == len(kinds)
        assert summaries.classes[lane].tolist() == [kinds.count(kind) for kind in range(7)]
        assert summaries.speeds[lane] == len(taken)
        assert summaries.release_sum[lane] == sum(clamped)
        assert summaries.inverse_h_km[lane] == pytest.approx(sum(1 / v for v in taken), abs=1e-6)
        if taken:
            assert summaries.mean_kmh[lane] == pytest.approx(sum(taken) / len(taken), abs=0.01)
            assert summaries.sd_kmh[lane] == pytest.approx(float(np.std(taken)), abs=0.01)
        else:
            assert np.isnan(summaries.mean_kmh[lane])
    assert without_speed > 0


def test_rush_hours_follow_the_working_day_and_the_direction() -> None:
    def density(inbound: float, text: str) -> float:
        return float(roads.density_share(CITY, ALL, np.full(80, inbound), np.full(80, at(text))).mean())

    assert density(1, f"{FRIDAY}T08:30") > density(-1, f"{FRIDAY}T08:30") > density(1, f"{FRIDAY}T03:00")
    assert density(-1, f"{FRIDAY}T18:30") > density(1, f"{FRIDAY}T18:30")
    assert density(1, f"{FRIDAY}T08:30") > density(1, f"{SATURDAY}T08:30")


def test_speed_falls_with_density() -> None:
    shares = np.linspace(0.01, 0.75, 80)
    speeds = roads.mean_speed_kmh(CITY, np.zeros(80, np.int64), np.full(80, 50.0), shares, np.full(80, NOON))
    assert (np.diff(speeds) < 0).all()


def test_no2_and_noise_follow_the_traffic_and_ozone_goes_the_other_way() -> None:
    days = np.repeat(np.arange(20) * sky.DAY_US, 80)
    posts = np.tile(ALL, 20)
    evening = at(f"{FRIDAY}T18:30")
    for name in ("no2_ug_m3", "noise_dba"):
        assert value(CITY, name, posts, evening + days).mean() > value(CITY, name, posts, NIGHT + days).mean()
    assert value(CITY, "o3_ug_m3", posts, evening + days).mean() < value(CITY, "o3_ug_m3", posts, NIGHT + days).mean()


def test_the_sun_makes_the_uv_index() -> None:
    assert value(CITY, "uv_index", ALL, np.full(80, NIGHT)).max() == 0
    assert value(CITY, "uv_index", ALL, np.full(80, NOON)).min() > 0
    sine = sky.sun_sine(np.array([22.3]), np.array([114.17]), np.array([at("2026-06-21T12:25")]))
    assert np.degrees(np.arcsin(sine[0])) == pytest.approx(88.8, abs=1.0)  # 90 - (23.44 - 22.3) at the solstice


def a_shower() -> tuple[showers.Shower, Ints, Ints]:
    """A shower that wets at least two posts, these posts, and those that it leaves dry."""
    for day in range(20_000, 20_400):
        for shower in showers.of_day(CITY.seed, day):
            away = np.hypot(CITY.easting_m - shower.easting_m, CITY.northing_m - shower.northing_m)
            wet, dry = np.flatnonzero(away < shower.radius_m), np.flatnonzero(away > 3 * shower.radius_m)
            if len(wet) >= 2 and len(dry) and shower.peak_mm_h > 15:
                return shower, wet, dry
    raise AssertionError("no shower in a year")


def test_a_shower_wets_neighbours_and_slows_them() -> None:
    shower, wet, dry = a_shower()
    middle = shower.start_us + shower.length_us // 2
    rain = showers.intensity_mm_h(CITY, ALL, np.full(80, middle))
    assert (rain[wet] > 5).all()
    assert rain[dry].max() < rain[wet].min()
    limit, share = np.full(len(wet), 50.0), np.full(len(wet), 0.1)
    wet_speed = roads.mean_speed_kmh(CITY, wet, limit, share, np.full(len(wet), middle))
    assert (wet_speed < 1.06 * 50 * 0.9 * 0.95).all()


def test_the_rain_counter_is_the_integral_of_the_rain() -> None:
    shower, wet, _ = a_shower()
    day = int(sky.day(np.array([shower.start_us]))[0])
    midnight = int(sky.day_start_us(np.array([day]))[0])
    times = midnight + np.arange(24 * 360) * 10 * US
    post = np.full(len(times), wet[0])
    summed = np.cumsum(showers.intensity_mm_h(CITY, post, times)) * 10 / 3600
    assert showers.fallen_mm(CITY, post, times)[-1] == pytest.approx(summed[-1], rel=0.01)
    counter = value(CITY, "rain_mm", post, times)
    assert (np.diff(counter) >= 0).all()
    assert np.allclose(counter / 0.2, np.rint(counter / 0.2))


def test_tourists_walk_where_tourists_are() -> None:
    large = city_of(build(400, 1, False).lampposts, 3)
    posts, times = np.arange(400), np.full(400, at(f"{SATURDAY}T16:00"))
    into, out = streets.crossings(large, posts, times)
    total = into + out
    assert total[large.tourists == 2.0].mean() > total[large.tourists == 0.7].mean()


def test_dumping_is_rare_and_at_night() -> None:
    hours = np.repeat(np.arange(24 * 60) + NIGHT // sky.HOUR_US, 80)
    found, time_us, kinds, confidence = streets.dumping(CITY, np.tile(ALL, 24 * 60), hours)
    at_night = (sky.hour(time_us) >= 22) | (sky.hour(time_us) < 5)
    assert 0 < len(found) < 0.005 * len(hours)
    assert at_night.mean() > 0.7
    assert set(kinds.tolist()) <= {0, 1, 2, 3}
    assert ((confidence > 0) & (confidence <= 1)).all()


def test_faultless_values_of_a_post_do_not_contradict_each_other() -> None:
    """Gust and mean wind, calm and its direction, PM2.5 and PM10: by day and night, in showers too."""
    posts = np.tile(ALL, 400)
    times = MORNING + np.arange(len(posts)) * 37_000_111
    shown = {
        name: value(CITY, name, posts, times)
        for name in {*(name for row in AT_LEAST for name in (row.greater, row.lesser)), *chain(*ZERO_TOGETHER)}
    }
    for row in AT_LEAST:
        assert (shown[row.greater] >= shown[row.lesser]).all()
    for one, other in ZERO_TOGETHER:
        assert ((shown[one] == 0) == (shown[other] == 0)).all()
