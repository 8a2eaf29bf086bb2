"""Public holidays are those that the government gazetted; districts are found by any of their names."""

from datetime import date

import pytest

from contracts.calendar import GAZETTED_THROUGH, days
from contracts.districts import DISTRICTS, district_code
from sensors_sim.sites import district_polygons

# GovHK, "General holidays for ...": month and day of each but the Sundays
GAZETTED = {
    2020: "0101 0125 0127 0128 0404 0410 0411 0413 0430 0501 0625 0701 1001 1002 1026 1225 1226",
    2026: "0101 0217 0218 0219 0403 0404 0406 0407 0501 0525 0619 0701 0926 1001 1019 1225 1226",
    2027: "0101 0206 0208 0209 0326 0327 0329 0405 0501 0513 0609 0701 0916 1001 1008 1225 1227",
}


@pytest.mark.parametrize("year", GAZETTED)
def test_public_holidays_are_the_gazetted_ones(year: int) -> None:
    found = [day.day for day in days(year) if day.day.year == year and day.is_public_holiday]
    assert [f"{day:%m%d}" for day in found] == GAZETTED[year].split()


def test_every_day_is_there_once_and_a_holiday_has_its_names() -> None:
    found = list(days(2027))
    assert [day.day.toordinal() for day in found] == list(
        range(date(2020, 1, 1).toordinal(), date(2028, 1, 1).toordinal())
    )
    for day in found:
        assert (day.holiday_en is not None) == (day.holiday_tc is not None) == day.is_public_holiday
    named = {day.day: (day.holiday_en, day.holiday_tc) for day in found}
    assert named[date(2026, 4, 7)] == ("The day following Easter Monday", "復活節星期一翌日")


def test_what_is_not_gazetted_is_unknown_and_not_false() -> None:
    later = [day for day in days(GAZETTED_THROUGH + 1) if day.day.year > GAZETTED_THROUGH]
    assert {day.is_public_holiday for day in later} == {None}
    assert sum(day.holiday_en is not None for day in later) == 17


def test_a_district_is_found_by_any_of_its_names() -> None:
    assert len({district.code for district in DISTRICTS}) == 18
    for district in DISTRICTS:
        for name in (district.en, district.tc, district.sc, f"{district.en.upper()} District", f" {district.tc} "):
            assert district_code(name) == district.code
    assert district_code("Central & Western") == "CW"
    # the Home Affairs Department's own names
    assert {district_code(name) for name in district_polygons()} == {district.code for district in DISTRICTS}


@pytest.mark.parametrize("name", ["", "Kowloon", "KC", "District", "區", "Sha  Tin Hoi"])
def test_what_is_no_districts_name_has_no_code(name: str) -> None:
    assert district_code(name) is None
