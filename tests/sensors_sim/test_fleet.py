"""The registry: real sites, right districts, one grid, three languages, the pilot's mix."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from contracts.registry import Lamppost, load_registry, save_registry
from contracts.settings import SettingError
from contracts.topics import POST_ID
from sensors_sim.areas import AREAS
from sensors_sim.config import configure
from sensors_sim.fleet import build, release_clamp
from sensors_sim.schedule import natural_rate
from sensors_sim.sites import detector_sites, inside

PILOT = build(400, 1, True)
POSTS = tuple(post for post in PILOT.lampposts if post.kind == "lamppost")
DETECTORS = [post for post in PILOT.lampposts if post.kind == "detector"]


def test_the_same_seed_makes_the_same_city() -> None:
    assert build(400, 1, True) == PILOT
    assert build(400, 2, True) != PILOT


def test_a_growing_fleet_moves_no_post() -> None:
    larger = {post.post_id: post for post in build(1200, 1, False).lampposts}
    for post in POSTS:
        grown = larger[post.post_id]
        assert (grown.easting_m, grown.northing_m, grown.sensors) == (post.easting_m, post.northing_m, post.sensors)


@pytest.mark.parametrize("posts", [0, 40_001])
def test_posts_out_of_range_are_refused(posts: int) -> None:
    with pytest.raises(ValueError, match="40000"):
        build(posts, 1, False)
    with pytest.raises(SettingError, match="40000"):
        configure({}, ["fleet", "--posts", str(posts)])


def test_forty_thousand_ids_of_two_letters_and_four_digits() -> None:
    ids = [post.post_id for post in build(40_000, 1, False).lampposts]
    assert len(set(ids)) == 40_000
    assert all(re.fullmatch(r"[A-Z]{2}\d{4}", post_id) for post_id in ids)


def test_posts_lie_in_their_districts() -> None:
    areas = {area.name: area.districts for area in AREAS}
    for district in {post.district for post in POSTS}:
        own = [post for post in POSTS if post.district == district]
        eastings, northings = np.array([p.easting_m for p in own]), np.array([p.northing_m for p in own])
        assert inside(district, eastings, northings).all()
        assert all(district in areas[post.area] for post in own)


def test_grid_and_wgs84_name_the_same_place() -> None:
    to_grid = Transformer.from_crs(4326, 2326, always_xy=True)
    eastings, northings = to_grid.transform(
        [post.longitude for post in PILOT.lampposts], [post.latitude for post in PILOT.lampposts]
    )
    for post, easting, northing in zip(PILOT.lampposts, eastings, northings, strict=True):
        assert abs(post.easting_m - easting) < 0.05
        assert abs(post.northing_m - northing) < 0.05
        assert 113.8 < post.longitude < 114.5
        assert 22.1 < post.latitude < 22.6


def test_the_row_with_the_wrong_longitude_is_where_its_grid_says() -> None:
    site = detector_sites()["AID01103"]
    assert (site.easting_m, site.northing_m) == (834750.0, 812208.0)


def test_sites_come_first_and_the_rest_lies_near_them() -> None:
    sites = detector_sites()
    for area in AREAS:
        own = [post for post in POSTS if post.area == area.name]
        chosen = [sites[site_id] for chain in area.chains for site_id in chain]
        places = {(site.easting_m, site.northing_m) for site in chosen}
        assert places <= {(post.easting_m, post.northing_m) for post in own}
        for post in own:
            assert min(np.hypot(post.easting_m - e, post.northing_m - n) for e, n in places) < 800


def test_names_are_trilingual_and_clean() -> None:
    for post in PILOT.lampposts:
        for names in (post.name, *(way.road for way in post.directions)):
            for text in (names.en, names.tc, names.sc):
                assert text
                assert text == text.strip()
            assert re.search(r"[\u4e00-\u9fff]", names.tc)
            assert re.search(r"[\u4e00-\u9fff]", names.sc)


def test_the_pilots_mix_is_about_forty_messages_a_second() -> None:
    streams = Counter(sensor.stream for post in POSTS for sensor in post.sensors)
    assert {name: streams[name] for name in ("traffic", "pedestrian", "weather", "air")} == {
        "traffic": 340,
        "pedestrian": 300,
        "weather": 360,
        "air": 330,
    }
    assert streams["dumping"] > 0
    assert natural_rate(POSTS) == pytest.approx(39.5)


def test_posts_with_traffic_have_one_or_two_ways_and_a_clamp() -> None:
    for post in POSTS:
        sees_traffic = "traffic" in post.streams
        assert sees_traffic == post.sends_classes == (post.release_clamp is not None)
        assert len(post.directions) in ((1, 2) if sees_traffic else (0,))
        assert len({way.direction_id for way in post.directions}) == len(post.directions)
        for way in post.directions:
            assert 1 <= len(way.lanes) <= 3
            assert post.release_clamp == release_clamp(way.speed_limit_kmh)


def test_the_clamp_of_a_fifty_road() -> None:
    clamp = release_clamp(50)
    assert (clamp.lo_kmh, clamp.hi_kmh, clamp.centre_kmh) == (5, 65, 35)


def test_every_gateway_is_a_group_of_one_area() -> None:
    groups: dict[str, list[Lamppost]] = {}
    for post in POSTS:
        assert post.gateway_id
        assert POST_ID.fullmatch(post.gateway_id)
        groups.setdefault(post.gateway_id, []).append(post)
    assert all(1 < len(group) <= 25 and len({post.area for post in group}) == 1 for group in groups.values())


def test_detectors_may_be_replayed_but_are_not_released() -> None:
    assert len(DETECTORS) == 700
    for post in DETECTORS:
        assert POST_ID.fullmatch(post.post_id)
        assert not post.sends_classes
        assert post.release_clamp is None
        assert post.gateway_id is None
        assert len(post.directions) == 1
        assert post.valid_from.year < 2024


def test_a_saved_registry_is_read_back(tmp_path: Path) -> None:
    save_registry(tmp_path / "lampposts.json", PILOT)
    assert load_registry(tmp_path / "lampposts.json").file == PILOT
