"""The posts of a registry as arrays, which every signal is computed over."""

from dataclasses import dataclass

import numpy as np

from contracts.registry import Lamppost
from sensors_sim.areas import AREAS
from sensors_sim.hashing import Floats, Ints, Keys, mix, salt

_CENTRAL_M = (834_300.0, 815_900.0)  # Central on the HK1980 grid: where mornings go to


@dataclass(frozen=True, eq=False)
class City:
    """Arrays over posts, and over lanes sorted by post.

    `lane_first` and `lane_count` give each post's slice of the lanes; `inbound` is +1 on a lane towards Central, -1
    away from it; `release_*` are the registry's clamp (0 where a post has none).
    """

    seed: int
    posts: tuple[Lamppost, ...]
    keys: Keys
    easting_m: Floats
    northing_m: Floats
    latitude: Floats
    longitude: Floats
    tourists: Floats
    limit_kmh: Floats
    lane_first: Ints
    lane_count: Ints
    lane_keys: Keys
    lane_limit_kmh: Floats
    inbound: Floats
    release_lo: Floats
    release_hi: Floats
    release_centre: Ints

    def salted(self, posts: Ints, name: str) -> Keys:
        """A key per post for one kind of noise."""
        return mix(self.keys[posts], int(salt(name) >> np.uint64(1)))

    def key(self, name: str) -> Keys:
        """One key for noise that the whole city shares."""
        return np.array([salt(self.seed, name)], dtype=np.uint64)


def city_of(posts: tuple[Lamppost, ...], seed: int) -> City:
    """The arrays of these posts; a post's values depend on its id, place and seed only."""
    tourists = {area.name: area.tourists for area in AREAS}
    lane_counts = [sum(len(way.lanes) for way in post.directions) for post in posts]
    lanes = [(post, way, number) for post in posts for way in post.directions for number, _ in enumerate(way.lanes)]
    clamps = [post.release_clamp for post, _, _ in lanes]
    return City(
        seed=seed,
        posts=posts,
        keys=np.array([salt(seed, post.post_id) for post in posts], dtype=np.uint64),
        easting_m=np.array([post.easting_m for post in posts]),
        northing_m=np.array([post.northing_m for post in posts]),
        latitude=np.array([post.latitude for post in posts]),
        longitude=np.array([post.longitude for post in posts]),
        tourists=np.array([tourists.get(post.area, 1.0) for post in posts]),
        limit_kmh=np.array([post.directions[0].speed_limit_kmh if post.directions else 50.0 for post in posts]),
        lane_first=np.cumsum([0, *lane_counts[:-1]], dtype=np.int64),
        lane_count=np.array(lane_counts, dtype=np.int64),
        lane_keys=np.array(
            [salt(seed, post.post_id, way.direction_id, number) for post, way, number in lanes], dtype=np.uint64
        ),
        lane_limit_kmh=np.array([float(way.speed_limit_kmh) for _, way, _ in lanes]),
        inbound=np.array([_inbound(post, way.bearing_deg) for post, way, _ in lanes]),
        release_lo=np.array([float(clamp.lo_kmh) if clamp else 0.0 for clamp in clamps]),
        release_hi=np.array([float(clamp.hi_kmh) if clamp else 0.0 for clamp in clamps]),
        release_centre=np.array([clamp.centre_kmh if clamp else 0 for clamp in clamps], dtype=np.int64),
    )


def _inbound(post: Lamppost, bearing_deg: int) -> float:
    towards = np.degrees(np.arctan2(_CENTRAL_M[0] - post.easting_m, _CENTRAL_M[1] - post.northing_m))
    return 1.0 if np.cos(np.radians(bearing_deg - towards)) >= 0 else -1.0
