"""The simulated city's registry: where its posts stand and what they carry. Deterministic in (posts, seed).

A post keeps its id, place and sensors when the fleet grows: post number k of an area does not depend on how many
there are.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np

from contracts.quantities import of_stream
from contracts.registry import Direction, Lamppost, Names, RegistryFile, ReleaseClamp, Sensor
from sensors_sim.areas import AREAS, POSTS_PER_AREA, Area, speed_limit_kmh
from sensors_sim.hashing import Floats, mix, salt, uniform
from sensors_sim.sites import (
    COMPASS,
    Site,
    bearing_code,
    detector_sites,
    grid_to_wgs84,
    inside,
    opposite,
)

MAX_POSTS = POSTS_PER_AREA * len(AREAS)
# Posts without a stream, of each 40: 340 traffic, 300 pedestrian, 360 weather, 330 air of 400; with the status
# heartbeats that makes 39.5 messages a second.
_WITHOUT = {"traffic": 6, "pedestrian": 10, "weather": 4, "air": 7, "dumping": 30}
_GATEWAY_POSTS = 25
_FIRST_POSTS = datetime(2019, 6, 27, tzinfo=UTC)  # the pilot's first 50 posts, June 2019
_DETECTORS_SINCE = datetime(2018, 1, 1, tzinfo=UTC)  # before any file of the feed
_LANES = {
    1: ("Slow Lane",),
    2: ("Fast Lane", "Slow Lane"),
    3: ("Fast Lane", "Middle Lane", "Slow Lane"),
}
_MODELS = {
    "traffic": ("LumaLane L4", 6.0),
    "pedestrian": ("LumaStep T2", 4.5),
    "weather": ("SkyPole W6", 8.0),
    "air": ("AirPole A7", 3.5),
    "dumping": ("KerbWatch D1", 5.0),
}
# Not every sensor is the full suite: the real pilot's weather sensors have neither rain, UV nor pressure.
_SUITES = {
    "weather": (
        (0.5, frozenset[str]()),
        (0.3, frozenset({"uv_index", "pressure_hpa"})),
        (0.2, frozenset({"uv_index", "pressure_hpa", "rain_mm", "wind_gust_ms"})),
    ),
    "air": ((0.6, frozenset[str]()), (0.4, frozenset({"so2_ug_m3", "co_ug_m3"}))),
}


def build(posts: int, seed: int, detectors: bool) -> RegistryFile:
    """A registry of so many lampposts (1..40,000), spread evenly over the areas, and on wish every detector.

    Raises ValueError when posts is out of range.
    """
    if not 1 <= posts <= MAX_POSTS:
        raise ValueError(f"posts lies in 1..{MAX_POSTS}: {POSTS_PER_AREA} ids per area")
    lampposts: list[Lamppost] = []
    gateways = 0
    for place, area in enumerate(AREAS):
        count = len(range(place, posts, len(AREAS)))
        lampposts += _area_posts(area, place, count, seed, gateways)
        gateways += -(-count // _GATEWAY_POSTS)
    if detectors:
        lampposts += [_detector(site) for site in detector_sites().values()]
    return RegistryFile(version=1, lampposts=tuple(sorted(lampposts, key=lambda post: post.post_id)))


def release_clamp(speed_limit: int) -> ReleaseClamp:
    """A tenth and 1.3 times the limit with the middle between: 5, 65 and 35 at 50 km/h; 7, 91 and 49 at 70."""
    lo, hi = round(speed_limit * 0.1), round(speed_limit * 1.3)
    return ReleaseClamp(lo_kmh=lo, hi_kmh=hi, centre_kmh=(lo + hi) // 2)


def _area_posts(area: Area, place: int, count: int, seed: int, gateways: int) -> Iterator[Lamppost]:
    sites = detector_sites()
    own = [sites[site_id] for chain in area.chains for site_id in chain][:count]
    places = [(site, site.easting_m, site.northing_m, float(site.bearing_deg)) for site in own]
    places += _between(area, count - len(own), seed)
    eastings, northings = np.array([p[1] for p in places]), np.array([p[2] for p in places])
    longitudes, latitudes = grid_to_wgs84().transform(eastings, northings)
    for number, (site, easting_m, northing_m, bearing) in enumerate(places):
        at_site = number < len(own)
        post_id = f"{area.prefix}{(1000 + number) % POSTS_PER_AREA:04d}"
        key = salt(seed, post_id, "equipment")
        sensors = tuple(_sensors(seed, number * len(AREAS) + place, key))
        sees_traffic = any(sensor.stream == "traffic" for sensor in sensors)
        limit = speed_limit_kmh(site.road.en)
        yield Lamppost(
            post_id=post_id,
            kind="lamppost",
            area=area.name,
            district=site.district,
            name=site.name if at_site else site.place,
            latitude=round(float(latitudes[number]), 7),
            longitude=round(float(longitudes[number]), 7),
            easting_m=easting_m,
            northing_m=northing_m,
            sensors=sensors,
            directions=_directions(site, bearing, at_site, limit, key) if sees_traffic else (),
            sends_classes=sees_traffic,
            release_clamp=release_clamp(limit) if sees_traffic else None,
            gateway_id=f"GW{gateways + number // _GATEWAY_POSTS + 1:04d}",
            valid_from=_FIRST_POSTS,
        )


def _between(area: Area, count: int, seed: int) -> list[tuple[Site, float, float, float]]:
    """Places between the sites of the chains, inside the nearest site's district: (nearest site, E, N, bearing).

    The van der Corput sequence along the joined chains spreads any number of posts evenly without moving any when
    more come; a pole stands 5 to 12 m beside the line of the road.
    """
    sites = detector_sites()
    legs = [(sites[a], sites[b]) for chain in area.chains for a, b in pairwise(chain)]
    starts = np.array([(a.easting_m, a.northing_m) for a, _ in legs])
    steps = np.array([(b.easting_m, b.northing_m) for _, b in legs]) - starts
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    ends = np.cumsum(lengths)
    numbers = np.arange(1, 2 * count + 9)
    along = _van_der_corput(numbers) * ends[-1]
    leg = np.searchsorted(ends, along, side="right")
    share = 1.0 - (ends[leg] - along) / lengths[leg]
    bearing = np.degrees(np.arctan2(steps[leg, 0], steps[leg, 1])) % 360
    key = salt(seed, area.prefix, "kerb")
    offset = (5.0 + 7.0 * uniform(key, numbers)) * np.where(numbers % 2, 1.0, -1.0)
    across = np.radians(bearing + 90.0)
    eastings = np.round(starts[leg, 0] + share * steps[leg, 0] + offset * np.sin(across), 2)
    northings = np.round(starts[leg, 1] + share * steps[leg, 1] + offset * np.cos(across), 2)
    nearest = [legs[index][0] if part < 0.5 else legs[index][1] for index, part in zip(leg, share, strict=True)]
    districts = np.array([site.district for site in nearest])
    fits = np.zeros(len(numbers), dtype=np.bool_)
    for district in area.districts:
        mine = districts == district
        fits[mine] = inside(district, eastings[mine], northings[mine])
    chosen = np.flatnonzero(fits)[:count]
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} of {count} places between the sites of {area.name} lie in its district")
    return [(nearest[i], float(eastings[i]), float(northings[i]), float(bearing[i])) for i in chosen]


def _van_der_corput(numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    """The base-2 radical inverse of each number, in (0, 1)."""
    inverse = np.zeros(len(numbers))
    weight, rest = 0.5, numbers.copy()
    while rest.any():
        inverse += weight * (rest & 1)
        rest >>= 1
        weight /= 2
    return inverse


def _sensors(seed: int, number: int, key: np.uint64) -> Iterator[Sensor]:
    """Sensors of the fleet's n-th post: of each 40 posts in order, exactly so many go without a stream."""
    for stream, without in _WITHOUT.items():
        order = np.argsort(mix(np.array([salt(seed, stream, number // 40)]), np.arange(40)))
        if order[number % 40] < without:
            continue
        drawn = uniform(mix(np.array([key]), int(salt(stream) >> np.uint64(1))), np.arange(2))
        model, height_m = _MODELS[stream]
        missing: frozenset[str] = frozenset()
        share = 0.0
        for weight, names in _SUITES.get(stream, ()):
            share += weight
            if drawn[0] < share:
                missing = names
                break
        yield Sensor(
            stream=stream,
            model=f"{model} Lite" if missing else model,
            height_m=height_m,
            calibrated_on=date(2026, 1, 5) + timedelta(days=int(drawn[1] * 240)),
            quantities=tuple(row.name for row in of_stream(stream) if row.name not in missing),
        )


def _directions(site: Site, bearing: float, at_site: bool, limit: int, key: np.uint64) -> tuple[Direction, ...]:
    """One direction or both. At a detector's site the first is the detector's own, elsewhere the line's."""
    drawn = uniform(key, np.arange(2))
    first = site.direction_id if at_site else bearing_code(bearing)
    own = COMPASS.index(first) * 45.0
    turned = (bearing - own + 180.0) % 360.0 - 180.0
    bearing_deg = round(bearing if abs(turned) <= 45 else own) % 360
    lanes = _LANES[1 + int(drawn[0] * 2) if limit <= 50 else 2 + int(drawn[0] * 2)]
    both = [(first, bearing_deg), (opposite(first), (bearing_deg + 180) % 360)][: 1 + int(drawn[1] < 0.6)]
    return tuple(
        Direction(direction_id=code, bearing_deg=degrees, road=site.road, lanes=lanes, speed_limit_kmh=limit)
        for code, degrees in both
    )


def _detector(site: Site) -> Lamppost:
    """A recorded detector as an entry that may be replayed. The location file does not tell its lanes."""
    longitude, latitude = grid_to_wgs84().transform(site.easting_m, site.northing_m)
    return Lamppost(
        post_id=site.site_id,
        kind="detector",
        area="Strategic roads",
        district=site.district,
        name=site.name,
        latitude=round(latitude, 7),
        longitude=round(longitude, 7),
        easting_m=site.easting_m,
        northing_m=site.northing_m,
        sensors=(
            Sensor(
                stream="traffic",
                model="Transport Department detector",
                height_m=6.0,
                calibrated_on=None,
                quantities=tuple(row.name for row in of_stream("traffic")),
            ),
        ),
        directions=(
            Direction(
                direction_id=site.direction_id,
                bearing_deg=site.bearing_deg,
                road=Names(en=site.road.en, tc=site.road.tc, sc=site.road.sc),
                lanes=(),
                speed_limit_kmh=speed_limit_kmh(site.road.en),
            ),
        ),
        sends_classes=False,
        release_clamp=None,
        gateway_id=None,
        valid_from=_DETECTORS_SINCE,
    )
