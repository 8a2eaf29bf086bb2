"""The city in the catalogue: areas, districts with a deployer's boundaries, the calendar."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

import sensors_sim
from contracts.districts import DISTRICTS
from contracts.layout import Layout
from contracts.registry import RegistryFile, save_registry
from contracts.settings import SettingError
from contracts.times import HONG_KONG
from tests.feed_samples import lamppost
from tests.warehouse.lake_samples import ask, config_of
from warehouse.__main__ import main
from warehouse.boundaries import read_boundaries
from warehouse.catalogue import publish
from warehouse.config import Config

HOME_AFFAIRS = Path(sensors_sim.__file__).parent / "data" / "hk_18_districts.geojson"


def test_areas_hold_the_lampposts_that_stand_now(tmp_path: Path) -> None:
    posts = [lamppost(number) for number in range(9)]
    posts.append(lamppost(900, post_id="AID01101", kind="detector"))
    posts.append(lamppost(901, valid_to=datetime(2026, 2, 1, tzinfo=UTC)))
    save_registry(Layout(tmp_path).registry, RegistryFile(version=1, lampposts=tuple(posts)))
    publish(config_of(tmp_path))
    found = {row["area"]: row for row in ask(tmp_path, "SELECT * FROM areas").iter_rows(named=True)}
    assert len(found) == 4
    for area, row in found.items():
        mine = [post for post in posts[:9] if post.area == area]
        north, south = max(post.latitude for post in mine), min(post.latitude for post in mine)
        assert (row["post_count"], row["north"], row["south"]) == (len(mine), north, south)
        assert row["centre_latitude"] == pytest.approx((north + south) / 2)
        codes = ask(tmp_path, f"SELECT DISTINCT district_code FROM lampposts WHERE area = '{area}'")
        assert row["districts"] == codes["district_code"].to_list()


def test_a_district_that_is_none_of_the_18_has_no_code(tmp_path: Path) -> None:
    file = RegistryFile(version=1, lampposts=(lamppost(1, district="Macau"), lamppost(2, district="中西區")))
    save_registry(Layout(tmp_path).registry, file)
    publish(config_of(tmp_path))
    found = ask(tmp_path, "SELECT district, district_code FROM lampposts ORDER BY post_id")
    assert sorted(found.iter_rows()) == [("Macau", None), ("中西區", "CW")]
    # and without a file there are no boundaries
    nothing = "SELECT count(geometry) + count(west) AS n FROM districts"
    assert ask(tmp_path, nothing)["n"].item() == 0


def test_the_calendar_is_duckdbs_and_goes_on_to_the_end_of_next_year(tmp_path: Path) -> None:
    publish(config_of(tmp_path))
    wrong = ask(
        tmp_path,
        "SELECT * FROM calendar WHERE weekday <> isodow(day) OR weekday_name <> dayname(day) OR iso_week <> week(day) "
        "OR iso_year <> isoyear(day) OR is_weekend <> (isodow(day) IN (6, 7))",
    )
    assert wrong.rows() == []
    ends = ask(tmp_path, "SELECT min(day), max(day), count(*) = max(day) - min(day) + 1 FROM calendar").row(0)
    assert ends == (date(2020, 1, 1), date(datetime.now(HONG_KONG).year + 1, 12, 31), True)
    holiday = "SELECT is_public_holiday, holiday_tc FROM calendar WHERE day = hk_time('2026-09-25 16:00Z')::DATE"
    assert ask(tmp_path, holiday).row(0) == (True, "中秋節翌日")


def test_boundaries_are_those_of_the_file(tmp_path: Path) -> None:
    publish(Config.build({"LAMPLIGHT_DISTRICTS": str(HOME_AFFAIRS)}, tmp_path))
    found = ask(tmp_path, "SELECT name_en, geometry, west, south, east, north FROM districts")
    wanted = {
        feature["properties"]["District"].replace("&", "and"): feature["geometry"]
        for feature in json.loads(HOME_AFFAIRS.read_bytes())["features"]
    }
    assert set(found["name_en"]) == set(wanted)
    for name, geometry, *box in found.iter_rows():
        assert json.loads(geometry) == wanted[name]
        assert tuple(box) == shapely.geometry.shape(wanted[name]).bounds


def features(**changes: Any) -> list[dict[str, Any]]:
    """A square for each district; `changes` of the first."""
    square = [[[114.1, 22.3], [114.2, 22.3], [114.2, 22.4], [114.1, 22.3]]]
    made = [
        {"properties": {"name": district.en, "number": 7}, "geometry": {"type": "Polygon", "coordinates": square}}
        for district in DISTRICTS
    ]
    made[0] |= changes
    return made


def polygon(*points: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(points)]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no file of the districts"),
        ("[]", "is no file of the districts"),
        ({"features": features()[1:]}, "Central and Western stands in 0 features"),
        ({"features": [*features(), features()[0]]}, "Central and Western stands in 2 features"),
        ({"features": features(properties={"name": "Kowloon"})}, "feature 1 name no district"),
        ({"features": features(properties={"a": "Wan Chai", "b": "東區"})}, "feature 1 name more than one district"),
        ({"features": features(geometry={"type": "Point", "coordinates": [114.1, 22.3]})}, "Point"),
        ({"features": features(geometry=polygon([835000, 817000]))}, "feature 1 leaves Hong Kong"),
        ({"features": features(geometry=polygon([22.3, 114.1]))}, "feature 1 leaves Hong Kong"),
        ({"features": features(geometry=polygon([114.1, "22.3"]))}, "nested lists of positions"),
        ({"features": features(geometry=polygon([114.1]))}, "nested lists of positions"),
        ({"features": features(geometry=polygon(7))}, "nested lists of positions"),
        ({"features": features(geometry={"type": "Polygon", "coordinates": []})}, "feature 1 has no points"),
    ],
)
def test_a_wrong_file_is_one_line_and_the_last_good_catalogue_stays(
    tmp_path: Path, content: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "districts.geojson"
    path.write_text(json.dumps({"features": features()}))
    assert len(read_boundaries(path)) == 18
    monkeypatch.setenv("LAMPLIGHT_DISTRICTS", str(path))
    Layout(tmp_path).catalogue.write_bytes(b"the last good one")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SettingError, match="LAMPLIGHT_DISTRICTS=") as failed:
        main(["--data", str(tmp_path), "publish"])
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
    assert Layout(tmp_path).catalogue.read_bytes() == b"the last good one"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        publish(Config.build({"LAMPLIGHT_DISTRICTS": str(tmp_path / "nowhere.geojson")}, tmp_path))
