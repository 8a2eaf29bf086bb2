"""The Transport Department's detector sites and the district polygons, read and checked."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import shapely
from pyproj import Transformer

from contracts.registry import Names
from sensors_sim.hashing import Floats

COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
_WORDS = ("North", "North East", "East", "South East", "South", "South West", "West", "North West")
_CODES = dict(zip(_WORDS, COMPASS, strict=True))
# The location file spells some districts in more than one way.
_DISTRICTS = {
    "Central and Western": "Central & Western",
    "Island": "Islands",
    "Kwai Chung": "Kwai Tsing",
    "Yeun Long": "Yuen Long",
}
_AGREE_M = 30.0  # both pairs of coordinates of a good row agree within metres; the bad ones are kilometres apart


@dataclass(frozen=True, kw_only=True)
class Site:
    """One detector: its id without slashes, place (HK1980 grid, metres), district, names and direction of travel.

    `place` is the road with the landmark, without the direction; `road` is the road alone.
    """

    site_id: str
    district: str
    road: Names
    place: Names
    name: Names
    easting_m: float
    northing_m: float
    direction_id: str
    bearing_deg: int


def compass_code(word: str | None) -> str | None:
    """ "SE" of "South East", blanks stripped; None when it is no compass word."""
    return _CODES.get(" ".join((word or "").split()))


def bearing_code(bearing_deg: float) -> str:
    """The eight-point code of a bearing."""
    return COMPASS[round(bearing_deg / 45.0) % 8]


def opposite(direction_id: str) -> str:
    """The code of the opposite direction."""
    return COMPASS[(COMPASS.index(direction_id) + 4) % 8]


@cache
def grid_to_wgs84() -> Transformer:
    """HK1980 grid (EPSG:2326) to longitude and latitude."""
    return Transformer.from_crs(2326, 4326, always_xy=True)


@cache
def wgs84_to_grid() -> Transformer:
    """Longitude and latitude to the HK1980 grid (EPSG:2326)."""
    return Transformer.from_crs(4326, 2326, always_xy=True)


@cache
def district_polygons() -> dict[str, shapely.Polygon]:
    """Polygon (WGS84) of each of the 18 districts by its English name, prepared for point tests."""
    text = files("sensors_sim").joinpath("data", "hk_18_districts.geojson").read_text("utf-8")
    polygons = {}
    for feature in json.loads(text)["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        shapely.prepare(polygon)
        polygons[feature["properties"]["District"]] = polygon
    return polygons


def inside(district: str, easting_m: Floats, northing_m: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which grid points lie in a district."""
    longitude, latitude = grid_to_wgs84().transform(easting_m, northing_m)
    return np.asarray(shapely.contains_xy(district_polygons()[district], longitude, latitude), dtype=np.bool_)


@cache
def detector_sites() -> dict[str, Site]:
    """Every row of detectors.csv by its id, with a place that has been checked.

    Raises ValueError that names a row whose coordinates contradict each other and of which neither pair lies in the
    row's district.
    """
    text = files("sensors_sim").joinpath("data", "detectors.csv").read_text("utf-8-sig")
    sites = (_site(row) for row in csv.DictReader(text.splitlines()))
    return {site.site_id: site for site in sites}


def _site(row: dict[str, str]) -> Site:
    row = {key: " ".join(value.split()) for key, value in row.items()}
    district = _DISTRICTS.get(row["District"], row["District"])
    easting_m, northing_m = _place(row, district)
    direction = compass_code(row["Direction"])
    if direction is None:
        raise ValueError(f"detector {row['AID_ID_Number']} has no compass direction: {row['Direction']!r}")
    place = Names(
        en=re.sub(r" *- *(North|South|East|West)bound.*$", "", row["Road_EN"]),
        tc=re.sub(r" *- *[東南西北]行.*$", "", row["Road_TC"]),
        sc=re.sub(r" *- *[东南西北]行.*$", "", row["Road_SC"]),
    )
    return Site(
        site_id=row["AID_ID_Number"].replace("/", ""),
        district=district,
        road=Names(en=place.en.split(" near ")[0], tc=place.tc.split("近")[0], sc=place.sc.split("近")[0]),
        place=place,
        name=Names(en=row["Road_EN"], tc=row["Road_TC"], sc=row["Road_SC"]),
        easting_m=easting_m,
        northing_m=northing_m,
        direction_id=direction,
        bearing_deg=int(row["Rotation"]) % 360,
    )


def _place(row: dict[str, str], district: str) -> tuple[float, float]:
    """The grid pair when both pairs agree; else the pair that lies in the district."""
    grid = (float(row["Easting"]), float(row["Northing"]))
    other = wgs84_to_grid().transform(float(row["Longitude"]), float(row["Latitude"]))
    if np.hypot(grid[0] - other[0], grid[1] - other[1]) <= _AGREE_M:
        return grid
    for pair in (grid, other):
        if inside(district, np.array([pair[0]]), np.array([pair[1]]))[0]:
            return pair
    raise ValueError(f"detector {row['AID_ID_Number']}: no pair of its coordinates lies in {district}")
