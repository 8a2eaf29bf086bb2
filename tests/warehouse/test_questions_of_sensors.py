"""Ready questions about single posts, against plain Python over the same hours, and with answers known beforehand."""

import math
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from random import Random
from statistics import fmean, linear_regression, median
from typing import Any

import pytest

from contracts.places import TOURIST_PLACES
from contracts.times import HONG_KONG
from tests.warehouse.lake_samples import ask
from tests.warehouse.weeks import MONDAY, lay, post, values

DAYS = 14
TSUI, KWUN = "Tsim Sha Tsui", "Kwun Tong"


def line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Slope and its standard error, by the textbook."""
    xs, ys = [float(x) for x, _ in points], [y for _, y in points]
    fit = linear_regression(xs, ys)
    left = sum((y - fit.intercept - fit.slope * x) ** 2 for x, y in points)
    return fit.slope, math.sqrt(left / (len(xs) - 2) / sum((x - fmean(xs)) ** 2 for x in xs))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sensor_that_drifts_is_first(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    posts = [*(post(number, TSUI) for number in range(5)), *(post(number, KWUN) for number in range(5, 8))]
    drifting, rows = random.choice(posts[:5]).post_id, []
    means: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for quantity, drift in (("pm2_5_ug_m3", 0.8), ("temperature_c", 0.0), ("noise_dba", 0.0)):
        for one in posts:
            for day in range(DAYS):
                level = random.gauss(20 + 5 * math.sin(day), 0.5) + drift * day * (one.post_id == drifting)
                share = 0.5 if random.random() < 0.1 else 1.0
                rows += values(one.post_id, quantity, MONDAY + timedelta(days=day), [level] * 24, share=share)
                if share == 1 and quantity != "noise_dba":
                    means[one.area, quantity, day][one.post_id] = level
    # a post without a full week says nothing
    rows += values("ZZ1099", "temperature_c", MONDAY, [30.0 + hour for hour in range(24 * 6)])
    lay(tmp_path, [*posts, post(99, TSUI)], [], rows)
    for day in range(6):
        means[TSUI, "temperature_c", day]["ZZ1099"] = 30 + 24 * day + 11.5
    series: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for (_, quantity, day), levels in means.items():
        for name, level in levels.items():
            others = [other for of, other in levels.items() if of != name]
            if len(others) >= 3:
                series[name, quantity].append((day, level - median(others)))
    fits = {key: (*line(points), sorted(points)) for key, points in series.items() if len(points) >= 7}
    sizes = {
        key: abs(slope / error)
        for key, (slope, error, points) in fits.items()
        if abs(slope) * (points[-1][0] - points[0][0]) >= 0.1
    }
    best = {name: max(t for (of, _), t in sizes.items() if of == name) for name, _ in sizes}
    found = ask(tmp_path, "FROM drifting_sensors")
    first = found.row(0, named=True)
    assert (first["post_id"], first["quantity"], first["unit"]) == (drifting, "pm2_5_ug_m3", "ug/m3")
    assert first["slope_per_day"] == pytest.approx(0.8, abs=4 * first["slope_error_per_day"])
    assert found["post_id"].to_list() == sorted(best, key=lambda name: -best[name])
    assert found["drift_rank"].to_list() == list(range(1, len(best) + 1))
    assert {row[0] for row in found.select("area").rows()} == {TSUI}
    for row in found.iter_rows(named=True):
        slope, error, points = fits[row["post_id"], row["quantity"]]
        assert row["slope_per_day"] == pytest.approx(slope, abs=1e-9)
        assert row["slope_error_per_day"] == pytest.approx(error)
        assert abs(row["t_value"]) == pytest.approx(best[row["post_id"]])
        assert row["day_count"] == len(points)
        assert row["last_difference"] == pytest.approx(points[-1][1])
        assert row["last_day"] == MONDAY.date() + timedelta(days=points[-1][0])
        assert row["drift"] == pytest.approx(slope * (points[-1][0] - points[0][0]))


def test_there_are_ten_posts_and_a_month_can_be_asked_for(tmp_path: Path) -> None:
    random = Random(3)
    posts = [post(number, TSUI) for number in range(14)]
    rows = []
    for number, one in enumerate(posts):
        for day in range(20):
            level = random.gauss(50, 0.2) + (number * day * 0.2 if day >= 10 else 0)
            rows += values(one.post_id, "humidity_pct", MONDAY + timedelta(days=day), [level] * 24)
    lay(tmp_path, posts, [], rows)
    assert ask(tmp_path, "FROM drifting_sensors").height == 10
    since = MONDAY + timedelta(days=11, hours=5)  # the whole day counts
    later = ask(tmp_path, f"FROM drifting_sensors_since('{since}'::TIMESTAMPTZ)")
    assert set(later["first_day"]) == {since.date()}
    assert set(later["day_count"]) == {9}


def test_levels_by_the_directives_formula(tmp_path: Path) -> None:
    """Day 60, evening 55, night 50 dB: each weighs 60, so that the whole is 60; other days against its formula."""
    random = Random(5)
    posts = [post(1, TSUI), post(2, KWUN)]
    days: dict[tuple[str, date], tuple[float, float, float]] = {}
    rows: list[dict[str, Any]] = []
    for one in posts:
        for day in range(3):
            levels = (
                (60.0, 55.0, 50.0)
                if day == 1
                else (random.uniform(55, 75), random.uniform(50, 70), random.uniform(45, 65))
            )
            days[one.post_id, (MONDAY + timedelta(days=day)).date()] = levels
            each = [levels[0]] * 12 + [levels[1]] * 4 + [levels[2]] * 8
            rows += values(one.post_id, "noise_dba", MONDAY + timedelta(days=day, hours=7), each)
    lay(tmp_path, posts, [], rows)
    found = ask(tmp_path, "FROM noise_at_night")
    assert found.height == len(days)
    for row in found.iter_rows(named=True):
        levels = days[row["post_id"], row["day"]]
        parts = ((12, levels[0]), (4, levels[1] + 5), (8, levels[2] + 10))
        den = 10 * math.log10(sum(hours * 10 ** (level / 10) for hours, level in parts) / 24)
        assert [row[f"l_{name}_dba"] for name in ("day", "evening", "night")] == pytest.approx(levels)
        assert row["l_den_dba"] == pytest.approx(den)
        assert row["loudest_minute_of_night_dba"] == levels[2]
        assert row["night_completeness"] == row["day_completeness"] == row["evening_completeness"] == 1
    assert found.filter(day=date(2026, 10, 6))["l_den_dba"].to_list() == pytest.approx([60, 60])
    # from a moment on: whole days from 07 on, the one of the moment first
    for hour, first in ((6, 5), (7, 6)):
        since = MONDAY + timedelta(days=1, hours=hour)
        later = ask(tmp_path, f"FROM noise_at_night_since('{since}'::TIMESTAMPTZ)")
        assert later.sort("day")["day"][0] == date(2026, 10, first)
        assert set(later["l_den_dba"]) <= set(found["l_den_dba"])


def test_noise_has_an_energy_mean_and_needs_three_quarters_of_the_minutes(tmp_path: Path) -> None:
    night = MONDAY + timedelta(hours=23)
    loud = [40.0] * 7 + [70.0]
    rows = values("ZZ1001", "noise_dba", night, [*loud[:6], None, None]) + values("ZZ1002", "noise_dba", night, loud)
    rows += values("ZZ1003", "noise_dba", night, [*loud[:5], None, None, None])
    lay(tmp_path, [post(number, TSUI) for number in (1, 2, 3)], [], rows)
    found = ask(tmp_path, "FROM noise_at_night ORDER BY post_id")
    mean = 10 * math.log10((7 * 10**4 + 10**7) / 8)
    assert found["l_night_dba"].to_list() == [pytest.approx(40), pytest.approx(mean), None]
    assert found["night_completeness"].to_list() == [0.75, 1, 0.625]
    assert found["l_den_dba"].to_list() == [None] * 3


def test_the_busiest_of_the_tourist_areas(tmp_path: Path) -> None:
    random = Random(9)
    names = [place.place for place in TOURIST_PLACES]
    posts = [post(number, f"{name}/Elsewhere") for number, name in enumerate(names)]
    posts += [post(10, KWUN, road="Central Plaza"), post(11, KWUN, road="Hoi Yuen Road")]
    crossings: dict[tuple[date, str], dict[int, float]] = defaultdict(dict)
    rows = []
    for one in posts:
        for hour in range(72):
            moment = MONDAY + timedelta(hours=hour)
            count = random.choice((None, *range(9)))
            for quantity in ("crossings_in_count", "crossings_out_count"):
                rows += values(one.post_id, quantity, moment, [count])
            if count is not None:
                crossings[moment.date(), one.post_id][moment.hour] = 240 * count
    lay(tmp_path, posts, [], rows)
    found = ask(tmp_path, "FROM busiest_tourist_spots")
    wanted = {key: hours for key, hours in crossings.items() if key[1] != "ZZ1011"}
    assert set(found.select("day", "post_id").rows()) == wanted.keys()
    for row in found.iter_rows(named=True):
        hours = wanted[row["day"], row["post_id"]]
        total = sum(hours.values())
        assert row["crossings_count"] == total == 2 * row["crossings_in_count"]
        assert dict(row["crossings_by_hour_hk"]) == hours
        assert row["busiest_hour_count"] == max(hours.values())
        assert row["busiest_hour_hk"] == min(hour for hour, count in hours.items() if count == max(hours.values()))
        assert row["completeness"] == pytest.approx(len(hours) / 24)
        rank = 1 + sum(sum(other.values()) > total for key, other in wanted.items() if key[0] == row["day"])
        assert row["rank_of_day"] == rank
    since = (MONDAY + timedelta(days=1, hours=3)).astimezone(HONG_KONG)
    later = ask(tmp_path, f"FROM busiest_tourist_spots_since('{since}'::TIMESTAMPTZ)")
    assert later.sort("day", "post_id").equals(found.filter(found["day"] >= since.date()).sort("day", "post_id"))


def test_sensors_of_an_empty_lake(tmp_path: Path) -> None:
    lay(tmp_path, [post(1, TSUI)], [], [])
    for name in ("drifting_sensors", "busiest_tourist_spots", "noise_at_night", "losses_yesterday"):
        assert ask(tmp_path, f"FROM {name}").is_empty(), name
