"""Hong Kong's days and its public holidays.

A public holiday is a general holiday of the General Holidays Ordinance (Cap. 149), which banks and schools keep;
Sundays, which the ordinance lists too, are left to the weekday. The package `holidays` computes them from the
ordinance's rules and the lunar calendar, and calls them OPTIONAL: its PUBLIC ones are the fewer statutory holidays of
the Employment Ordinance.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

FIRST_YEAR = 2020
# The government gazettes a year's list in the spring before (GovHK, "General holidays for 2027"). What is computed for
# later years may be moved by it: raise this when the new list has been compared.
GAZETTED_THROUGH = 2027


class Day(NamedTuple):
    """A day in Hong Kong. `is_public_holiday` is None in a year that is not gazetted yet; the names are then those of
    the ordinance's rules."""

    day: date
    is_public_holiday: bool | None
    holiday_en: str | None
    holiday_tc: str | None


def days(last_year: int) -> Iterator[Day]:
    """Every day from 2020 to the end of `last_year`."""
    # a tenth of a second, which only a publisher has to spend
    from holidays import OPTIONAL, country_holidays

    years = range(FIRST_YEAR, last_year + 1)
    english, chinese = (
        country_holidays("HK", years=years, categories=OPTIONAL, language=language) for language in ("en_HK", "zh_HK")
    )
    day = date(FIRST_YEAR, 1, 1)
    while day.year <= last_year:
        is_known = day.year <= GAZETTED_THROUGH
        yield Day(day, day in english if is_known else None, english.get(day), chinese.get(day))
        day += timedelta(days=1)
