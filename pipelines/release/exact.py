"""Exact products: weather and air name nobody, so every value of their open quantities may leave."""

from datetime import datetime, timedelta

import polars as pl

from contracts.quantities import of_stream
from contracts.registry import Registry
from contracts.schemas import Product
from contracts.times import to_us


def product_rows(
    windows: pl.DataFrame, product: Product, registry: Registry, closed_through: datetime, period_s: int
) -> pl.DataFrame:
    """Rows of an exact product from rows of WINDOWS: one per post and window, quantities side by side.

    A row's completeness is that of its least complete quantity. Windows that end after `closed_through` are
    provisional. Only lampposts of the registry that are valid at the window's start appear.
    """
    names = [quantity.name for quantity in of_stream(product.name) if quantity.is_open]
    empty = pl.DataFrame(product.schema.empty_table())
    rows = windows.filter(pl.col("quantity").is_in(names) & (pl.col("value_count") > 0))
    places = _places(rows, registry)
    if places.is_empty():
        return empty
    end = pl.col("window_start") + timedelta(seconds=period_s)
    cells = (
        rows.group_by(["post_id", "window_start"])
        .agg(
            *[pl.col("value").filter(pl.col("quantity") == name).first().alias(name) for name in names],
            data_through=pl.col("last_event_time").max(),
            completeness=pl.col("completeness").min(),
        )
        .join(places, on=["post_id", "window_start"], how="inner")
        .with_columns(window_end=end, is_provisional=end > closed_through)
    )
    return cells.select(product.schema.names).cast(dict(empty.schema))  # type: ignore[arg-type]


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
