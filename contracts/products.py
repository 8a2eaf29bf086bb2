"""Open data products: what may leave, field by field. A column that no product names cannot leave."""

from dataclasses import dataclass

import pyarrow as pa

from contracts.fields import TIMESTAMP, field
from contracts.quantities import Quantity, of_stream
from contracts.schemas import FLOW_WINDOW_S, POST, WINDOW_S, WINDOW_START


@dataclass(frozen=True, kw_only=True)
class Product:
    """An open data product: one row per public cell and window."""

    name: str
    title: str
    description: str
    key: tuple[str, ...]
    period_s: int
    is_noised: bool
    schema: pa.Schema


_PLACE = [
    POST,
    field("latitude", pa.float64(), "deg", "WGS84 latitude of the post."),
    field("longitude", pa.float64(), "deg", "WGS84 longitude of the post."),
]
_WINDOW = [
    WINDOW_START,
    field("window_end", TIMESTAMP, "UTC", "End of the window; the window is [start, end)."),
]
_COMPLETENESS = field("completeness", pa.float64(), "1", "Share of the window's expected readings that is in the row.")


def _open_field(quantity: Quantity) -> pa.Field:
    description = f"{quantity.description} Window value: {quantity.aggregation}."
    return field(quantity.name, pa.float64(), quantity.unit, description, True)


def _exact_product(name: str, title: str, description: str) -> Product:
    return Product(
        name=name,
        title=title,
        description=description,
        key=("post_id",),
        period_s=WINDOW_S,
        is_noised=False,
        schema=pa.schema(
            [
                *_PLACE,
                *_WINDOW,
                field(
                    "is_provisional", pa.bool_(), "", "The window is still open or its last readings may be on the way."
                ),
                field("data_through", TIMESTAMP, "UTC", "Event time of the newest reading in the row."),
                _COMPLETENESS,
                *[_open_field(quantity) for quantity in of_stream(name) if quantity.is_open],
            ]
        ),
    )


PRODUCTS = {
    product.name: product
    for product in (
        _exact_product(
            "weather", "Weather at the lampposts", "Exact five-minute values of each post's weather sensors."
        ),
        _exact_product("air", "Air quality at the lampposts", "Exact five-minute values of each post's air sensors."),
        Product(
            name="traffic",
            title="Traffic volume at the lampposts",
            description="Vehicles per post, direction and fifteen minutes, noised; small ones are null.",
            key=("post_id", "direction"),
            period_s=FLOW_WINDOW_S,
            is_noised=True,
            schema=pa.schema(
                [
                    *_PLACE,
                    field("direction", pa.string(), "", "Direction of travel: direction_id in lampposts."),
                    field("bearing_deg", pa.int32(), "deg", "Bearing of the direction of travel."),
                    *_WINDOW,
                    field("vehicle_count", pa.int64(), "1", "Vehicles plus secret noise; null when suppressed.", True),
                    field("is_suppressed", pa.bool_(), "", "The noised value is under the publication threshold."),
                    field("ci95", pa.float64(), "1", "Half-width of the 95 % interval of the noise: 1.96 sigma."),
                    _COMPLETENESS,
                    field("is_late_release", pa.bool_(), "", "Released late: readings were waited for."),
                    field("released_at", TIMESTAMP, "UTC", "When the noise was drawn, once."),
                ]
            ),
        ),
    )
}

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
ATTRIBUTION = (
    "Lamplight smart lampposts (simulated); sites: Transport Department, districts: Home Affairs Department, "
    "via DATA.GOV.HK"
)
