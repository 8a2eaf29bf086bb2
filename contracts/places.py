"""Places of the pilot areas that visitors come to: which posts the question about tourist spots is asked of."""

from typing import NamedTuple


class TouristPlace(NamedTuple):
    """`place` is looked for in the area and in the English name of the registry's posts."""

    place: str
    attractions: str


# our choice among the pilot's areas: Kwun Tong and Kai Tak are where people work and live
TOURIST_PLACES = (
    TouristPlace("Central", "Star Ferry, Observation Wheel, Peak Tram, Lan Kwai Fong"),
    TouristPlace("Wan Chai", "Golden Bauhinia Square, Convention and Exhibition Centre"),
    TouristPlace("Causeway Bay", "shops, Victoria Park, Noonday Gun"),
    TouristPlace("Tsim Sha Tsui", "Avenue of Stars, museums, Canton Road"),
)
