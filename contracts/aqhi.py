"""Hong Kong's Air Quality Health Index: added health risk in per cent, its bands and what they mean.

%AR = NO2 + SO2 + O3 + max(PM10, PM2.5), each (exp(beta * C) - 1) * 100 with C the mean of the past three hours in
ug/m3. A band holds what is above the one before, up to its own upper bound. Sources: Wong et al. 2013, "Developing a
Risk-based Air Quality Health Index", Atmospheric Environment 76, and the Environmental Protection Department's AQHI
pages; since 22 March 2025 the Department uses another beta of ozone and other bands (its list of questions).
"""

from dataclasses import dataclass
from datetime import datetime

from contracts.times import HONG_KONG

PERIOD_S = 10_800
# Of the values that the cadence promises, so many must be there: else there is no mean and no index.
DATA_CAPTURE = 0.75
# A missing pollutant makes no index; of these two the greater risk counts.
PARTICLES = ("pm10_ug_m3", "pm2_5_ug_m3")
BANDS = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "10+")


@dataclass(frozen=True, kw_only=True)
class Edition:
    """What holds for windows that end after `valid_from` and not after `valid_to`: `betas` per ug/m3, by quantity;
    `upper_pct`, the added risk in per cent up to which each band but the last goes."""

    valid_from: datetime
    valid_to: datetime | None
    betas: dict[str, float]
    upper_pct: tuple[float, ...]


_BETAS = {
    "no2_ug_m3": 0.0004462559,
    "so2_ug_m3": 0.0001393235,
    "pm10_ug_m3": 0.0002821751,
    "pm2_5_ug_m3": 0.0002180567,
}
_BEGUN = datetime(2013, 12, 30, tzinfo=HONG_KONG)
_REVISED = datetime(2025, 3, 22, tzinfo=HONG_KONG)

EDITIONS = (
    Edition(
        valid_from=_BEGUN,
        valid_to=_REVISED,
        betas={**_BETAS, "o3_ug_m3": 0.0005116328},
        upper_pct=(1.88, 3.76, 5.64, 7.52, 9.41, 11.29, 12.91, 15.07, 17.22, 19.37),
    ),
    Edition(
        valid_from=_REVISED,
        valid_to=None,
        betas={**_BETAS, "o3_ug_m3": 0.0004888034},
        upper_pct=(1.87, 3.73, 5.60, 7.46, 9.33, 11.20, 12.81, 14.94, 17.08, 19.21),
    ),
)


def health_risk(band: str) -> str:
    """Category of health risk of a band."""
    place = BANDS.index(band) + 1
    for last, risk in ((3, "low"), (6, "moderate"), (7, "high"), (10, "very high")):
        if place <= last:
            return risk
    return "serious"
