"""The open data products as a table of the catalogue: what leaves the house, under which licence, and what keeps people
out of it."""

from typing import Any

import pyarrow as pa

from contracts.fields import field
from contracts.products import ATTRIBUTION, LICENCE, PRODUCTS

PRODUCT_ROWS = pa.schema(
    [
        field("product", pa.string(), "", "Name of the open data product."),
        field("title", pa.string(), "", "Title."),
        field("description", pa.string(), "", "What a row is."),
        field("key", pa.list_(pa.string()), "", "Columns that tell the rows of one window apart."),
        field("period_s", pa.int32(), "s", "Length of its windows, and how often a new one comes."),
        field("is_noised", pa.bool_(), "", "Whether its counts are the true ones plus secret noise."),
        field("privacy", pa.string(), "", "What keeps people out of it."),
        field("licence", pa.string(), "", "Licence."),
        field("attribution", pa.string(), "", "How to name the source."),
    ]
)
_PRIVACY = {
    False: "Exact: nobody is in it.",
    True: "Noise that is drawn once and never again; small values are suppressed.",
}


def product_rows() -> list[dict[str, Any]]:
    """One row for each product."""
    return [
        {
            "product": product.name,
            "title": product.title,
            "description": product.description,
            "key": product.key,
            "period_s": product.period_s,
            "is_noised": product.is_noised,
            "privacy": _PRIVACY[product.is_noised],
            "licence": LICENCE,
            "attribution": ATTRIBUTION,
        }
        for product in PRODUCTS.values()
    ]
