"""Boundaries of the districts from a deployer's GeoJSON file: there is no package of them with a clean licence."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from contracts.districts import DISTRICTS, district_code
from contracts.settings import SettingError

# Hong Kong in WGS84, roomy: a file in the HK1980 grid, or with latitude before longitude, lies outside.
_WEST, _SOUTH, _EAST, _NORTH = 113.7, 22.0, 114.6, 22.7


class Boundary(NamedTuple):
    """`geometry`: GeoJSON text, a polygon or several; the box around it in degrees, WGS84."""

    code: str
    geometry: str
    west: float
    south: float
    east: float
    north: float


class _Geometry(msgspec.Struct):
    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class _Feature(msgspec.Struct):
    geometry: _Geometry
    properties: dict[str, Any]


class _Collection(msgspec.Struct):
    features: list[_Feature]


def read_boundaries(path: Path) -> tuple[Boundary, ...]:
    """Every district's boundary from a FeatureCollection in WGS84 whose features name their district in any property.

    An unchanged file is read once. Raises SettingError that names LAMPLIGHT_DISTRICTS when the file is missing or
    broken, lies elsewhere or holds another set of districts.
    """
    try:
        status = path.stat()
        return _read(path, status.st_ino, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise SettingError(f"LAMPLIGHT_DISTRICTS={path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # msgspec's are, too
        raise SettingError(f"LAMPLIGHT_DISTRICTS={path} is no file of the districts: {error}") from error


@lru_cache(maxsize=1)
def _read(path: Path, *_stamp: int) -> tuple[Boundary, ...]:
    features = msgspec.json.decode(path.read_bytes(), type=_Collection).features
    found = [_boundary(number, feature) for number, feature in enumerate(features, start=1)]
    codes = [boundary.code for boundary in found]
    for district in DISTRICTS:
        if (count := codes.count(district.code)) != 1:
            raise ValueError(f"{district.en} stands in {count} features instead of one")
    return tuple(found)


def _boundary(number: int, feature: _Feature) -> Boundary:
    names = [value for value in feature.properties.values() if isinstance(value, str)]
    codes = {code for name in names if (code := district_code(name))}
    if len(codes) != 1:
        said = "no district" if not codes else "more than one district"
        raise ValueError(f"the properties of feature {number} name {said}")
    points = list(_points(feature.geometry.coordinates))
    if not points:
        raise ValueError(f"feature {number} has no points")
    west, east = min(point[0] for point in points), max(point[0] for point in points)
    south, north = min(point[1] for point in points), max(point[1] for point in points)
    if west < _WEST or east > _EAST or south < _SOUTH or north > _NORTH:
        raise ValueError(f"feature {number} leaves Hong Kong: give longitude and latitude in WGS84")
    return Boundary(codes.pop(), msgspec.json.encode(feature.geometry).decode(), west, south, east, north)


def _points(coordinates: list[Any]) -> Iterator[tuple[float, float]]:
    """The positions in nested lists. Raises ValueError when something else is in them."""
    for part in coordinates:
        if isinstance(part, list) and part and isinstance(part[0], list):
            yield from _points(part)
        elif isinstance(part, list) and len(part) > 1 and all(isinstance(number, int | float) for number in part):
            yield float(part[0]), float(part[1])
        else:
            raise ValueError("coordinates must be nested lists of positions")
