"""What a null stands for in the files of the lake, where other columns of the row say it.

Most minutes of weather and air hold one value, which is their sum, least, greatest, first and last. On disk it stands
there once: a column is null where the expression below, over the row's other columns, gives its value. Reading is
`coalesce(column, expression)`; the catalogue's views and the stages do so. An expression is null wherever the column
itself may be, so nothing is mistaken.
"""

# without a direction's state: of directions there is no sum
_SCALAR = "CASE WHEN unit_count IS NULL THEN {} END"

# table -> column -> SQL over columns that are always whole
IMPLIED: dict[str, dict[str, str]] = {
    "minutes": {
        "value_sum": _SCALAR.format("last_value"),
        "value_sum_squares": _SCALAR.format("last_value * last_value"),
        "value_min": "last_value",
        "value_max": "last_value",
        "first_value": "last_value",
        "plain_last": "last_value",
        "plain_min": "last_value",
        "plain_max": "last_value",
    }
}
