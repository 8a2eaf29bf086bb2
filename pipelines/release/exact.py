"""Exact products: weather and air name nobody, so every value of their open quantities may leave."""

import math
from datetime import datetime, timedelta

import polars as pl

from contracts.products import Product
from contracts.quantities import Quantity, of_stream
from contracts.registry import Registry
from contracts.times import to_us


def product_rows(
    windows: pl.DataFrame, product: Product, registry: Registry, closed_through: datetime, period_s: int
) -> pl.DataFrame:
    """Rows of an exact product from rows of WINDOWS: one per post and window, quantities side by side.

    A row's completeness is that of its least complete quantity. Windows that end after `closed_through` are
    provisional. Only lampposts of the registry that are valid at the window's start appear. Values are rounded to a
    tenth of the sensor's resolution: more digits would say more than was measured.
    """
    quantities = [quantity for quantity in of_stream(product.name) if quantity.is_open]
    names = [quantity.name for quantity in quantities]
    empty = pl.DataFrame(product.schema.empty_table())
    rows = windows.filter(pl.col("quantity").is_in(names) & (pl.col("value_count") > 0))
    places = _places(rows, registry)
    if places.is_empty():
        return empty
    end = pl.col("window_start") + timedelta(seconds=period_s)
    cells = (
        rows.group_by(["post_id", "window_start"])
        .agg(
            *[
                pl.col("value").filter(pl.col("quantity") == row.name).first().round(decimals(row)).alias(row.name)
                for row in quantities
            ],
            data_through=pl.col("last_event_time").max(),
            completeness=pl.col("completeness").min().round(3),
        )
        .join(places, on=["post_id", "window_start"], how="inner")
        .with_columns(window_end=end, is_provisional=end > closed_through)
    )
    return cells.select(product.schema.names).cast(dict(empty.schema))  # type: ignore[arg-type]


def decimals(quantity: Quantity) -> int:
    """Decimals of a published value: one more than the resolution of a single reading."""
    return max(0, 1 - math.floor(math.log10(quantity.resolution)))


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Each post's newest window."""
    return rows.sort("window_start").unique(subset="post_id", keep="last", maintain_order=True)


def _places(rows: pl.DataFrame, registry: Registry) -> pl.DataFrame:
    found = []
    for post_id, start in rows.select("post_id", "window_start").unique().iter_rows():
        post = registry.at(post_id, to_us(start))
        if post is not None and post.kind == "lamppost":
            found.append((post_id, start, post.latitude, post.longitude))
    return pl.DataFrame(
        found,
        schema={
            "post_id": pl.String,
            "window_start": pl.Datetime("us", "UTC"),
            "latitude": pl.Float64,
            "longitude": pl.Float64,
        },
        orient="row",
    )
