"""The city as reference tables: the registry's entries with their directions and sensors, districts, calendar."""

import pyarrow as pa

from contracts.calendar import days
from contracts.districts import DISTRICTS, district_code
from contracts.fields import TIMESTAMP, field
from contracts.registry import Registry
from warehouse.boundaries import Boundary

LAMPPOST_ENTRIES = pa.schema(
    [
        field("post_id", pa.string(), "", "Lamppost, or a recorded detector by its own id."),
        field("kind", pa.string(), "", "lamppost or detector."),
        field("area", pa.string(), "", "Pilot area."),
        field("district", pa.string(), "", "District of Hong Kong, as the registry writes it."),
        field("district_code", pa.string(), "", "Its code in districts; null: none of the 18.", True),
        field("name_en", pa.string(), "", "Name in English."),
        field("name_tc", pa.string(), "", "Name in traditional Chinese."),
        field("name_sc", pa.string(), "", "Name in simplified Chinese."),
        field("latitude", pa.float64(), "deg", "WGS84 latitude."),
        field("longitude", pa.float64(), "deg", "WGS84 longitude."),
        field("easting_m", pa.float64(), "m", "HK1980 grid easting (EPSG:2326)."),
        field("northing_m", pa.float64(), "m", "HK1980 grid northing (EPSG:2326)."),
        field("streams", pa.list_(pa.string()), "", "Streams that the post may send."),
        field("sends_classes", pa.bool_(), "", "Whether its lane summaries tell vehicle classes."),
        field("gateway_id", pa.string(), "", "Gateway that it is connected through.", True),
        field("valid_from", TIMESTAMP, "UTC", "The entry holds from this moment."),
        field("valid_to", TIMESTAMP, "UTC", "The entry holds until this moment; null: it holds still.", True),
    ]
)
_POST_SPAN = [
    field("post_id", pa.string(), "", "Lamppost or detector."),
    field("valid_from", TIMESTAMP, "UTC", "Start of the registry entry that the row belongs to."),
]
DIRECTIONS = pa.schema(
    [
        *_POST_SPAN,
        field("direction", pa.string(), "", "direction_id of the registry, as in lane_flows."),
        field("bearing_deg", pa.int32(), "deg", "Bearing of the direction of travel."),
        field("road_en", pa.string(), "", "Road in English."),
        field("road_tc", pa.string(), "", "Road in traditional Chinese."),
        field("road_sc", pa.string(), "", "Road in simplified Chinese."),
        field("lanes", pa.list_(pa.string()), "", "Lanes as the device names them."),
        field("speed_limit_kmh", pa.int32(), "km/h", "Speed limit."),
    ]
)
SENSORS = pa.schema(
    [
        *_POST_SPAN,
        field("stream", pa.string(), "", "Stream that the sensor feeds."),
        field("model", pa.string(), "", "Model."),
        field("height_m", pa.float64(), "m", "Height above ground."),
        field("calibrated_on", pa.date32(), "", "Day of the last calibration.", True),
        field("quantities", pa.list_(pa.string()), "", "Quantities that it measures."),
    ]
)
_BOUNDARY = "without LAMPLIGHT_DISTRICTS."
DISTRICT_ROWS = pa.schema(
    [
        field("district_code", pa.string(), "", "Code of the Digital Policy Office's list."),
        field("name_en", pa.string(), "", "Name in English."),
        field("name_tc", pa.string(), "", "Name in traditional Chinese."),
        field("name_sc", pa.string(), "", "Name in simplified Chinese."),
        field("region", pa.string(), "", "Hong Kong Island, Kowloon or New Territories."),
        field("west", pa.float64(), "deg", f"Least longitude of the boundary, WGS84; null {_BOUNDARY}", True),
        field("south", pa.float64(), "deg", f"Least latitude; null {_BOUNDARY}", True),
        field("east", pa.float64(), "deg", f"Greatest longitude; null {_BOUNDARY}", True),
        field("north", pa.float64(), "deg", f"Greatest latitude; null {_BOUNDARY}", True),
        field("geometry", pa.string(), "", f"Boundary as GeoJSON, WGS84; null {_BOUNDARY}", True),
    ]
)
CALENDAR = pa.schema(
    [
        field("day", pa.date32(), "", "Day in Hong Kong: hk_time(t)::DATE."),
        field("weekday", pa.int8(), "1", "Day of the week by ISO 8601: 1 is Monday, 7 is Sunday."),
        field("weekday_name", pa.string(), "", "Monday to Sunday."),
        field("is_weekend", pa.bool_(), "", "Saturday or Sunday."),
        field(
            "is_public_holiday",
            pa.bool_(),
            "",
            "A general holiday of Cap. 149 other than a Sunday; null in a year that is not gazetted yet.",
            True,
        ),
        field("holiday_en", pa.string(), "", "The holiday in English; in such a year as the rules give it.", True),
        field("holiday_tc", pa.string(), "", "The holiday in traditional Chinese; likewise.", True),
        field("iso_year", pa.int16(), "1", "Year that the ISO week belongs to."),
        field("iso_week", pa.int8(), "1", "Week by ISO 8601, 1 to 53."),
    ]
)
CITY = {
    "lamppost_entries": LAMPPOST_ENTRIES,
    "directions": DIRECTIONS,
    "sensors": SENSORS,
    "districts": DISTRICT_ROWS,
    "calendar": CALENDAR,
}
CITY_DESCRIPTIONS = {
    "lamppost_entries": "The registry: a reading belongs to the entry that was valid at its time; lampposts_at(t) "
    "gives those of a moment. Grain: one post and time span. Key: post_id, valid_from.",
    "directions": "Directions of travel that a post sees. Grain: one direction of an entry. "
    "Key: post_id, valid_from, direction.",
    "sensors": "Sensors on a post. Grain: one sensor of an entry. Key: post_id, valid_from, stream, model.",
    "districts": "The 18 districts of Hong Kong; boundaries where the deployer gave them. Grain: one district. "
    "Key: district_code.",
    "calendar": "Days in Hong Kong with weekdays and public holidays, from 2020 to the end of next year. "
    "Grain: one day. Key: day.",
}


def registry_rows(registry: Registry | None) -> dict[str, pa.Table]:
    """The registry's entries with their directions and sensors; without a registry: no rows."""
    posts = registry.file.lampposts if registry else ()
    entries = [
        {
            "post_id": post.post_id,
            "kind": post.kind,
            "area": post.area,
            "district": post.district,
            "district_code": district_code(post.district),
            "name_en": post.name.en,
            "name_tc": post.name.tc,
            "name_sc": post.name.sc,
            "latitude": post.latitude,
            "longitude": post.longitude,
            "easting_m": post.easting_m,
            "northing_m": post.northing_m,
            "streams": sorted(post.streams),
            "sends_classes": post.sends_classes,
            "gateway_id": post.gateway_id,
            "valid_from": post.valid_from,
            "valid_to": post.valid_to,
        }
        for post in posts
    ]
    directions = [
        {
            "post_id": post.post_id,
            "valid_from": post.valid_from,
            "direction": direction.direction_id,
            "bearing_deg": direction.bearing_deg,
            "road_en": direction.road.en,
            "road_tc": direction.road.tc,
            "road_sc": direction.road.sc,
            "lanes": direction.lanes,
            "speed_limit_kmh": direction.speed_limit_kmh,
        }
        for post in posts
        for direction in post.directions
    ]
    sensors = [
        {
            "post_id": post.post_id,
            "valid_from": post.valid_from,
            "stream": sensor.stream,
            "model": sensor.model,
            "height_m": sensor.height_m,
            "calibrated_on": sensor.calibrated_on,
            "quantities": sensor.quantities,
        }
        for post in posts
        for sensor in post.sensors
    ]
    rows = {"lamppost_entries": entries, "directions": directions, "sensors": sensors}
    return {name: pa.Table.from_pylist(some, CITY[name]) for name, some in rows.items()}


def district_rows(boundaries: tuple[Boundary, ...]) -> pa.Table:
    """All districts, with the boundaries that there are."""
    known = {boundary.code: boundary._asdict() for boundary in boundaries}
    rows = [
        {
            "district_code": district.code,
            "name_en": district.en,
            "name_tc": district.tc,
            "name_sc": district.sc,
            "region": district.region,
            **known.get(district.code, {}),
        }
        for district in DISTRICTS
    ]
    return pa.Table.from_pylist(rows, DISTRICT_ROWS)


def calendar_rows(last_year: int) -> pa.Table:
    """Every day until the end of `last_year`."""
    rows = [
        {
            **day._asdict(),
            "weekday": day.day.isoweekday(),
            "weekday_name": f"{day.day:%A}",
            "is_weekend": day.day.isoweekday() > 5,
            "iso_year": day.day.isocalendar().year,
            "iso_week": day.day.isocalendar().week,
        }
        for day in days(last_year)
    ]
    return pa.Table.from_pylist(rows, CALENDAR)
