"""A minute's state does not depend on what else is computed at once."""

from datetime import timedelta

import polars as pl
from polars.testing import assert_frame_equal

from contracts.quantities import QUANTITIES
from contracts.schemas import FOOTFALL, OBSERVATIONS
from pipelines.kernels.frames import empty
from pipelines.kernels.minutes import minutes
from tests.pipelines.raw_log import START


def observations(count: int) -> pl.DataFrame:
    """Values of every quantity of the air and the weather, a minute apart."""
    names = [name for name, row in QUANTITIES.items() if row.stream in ("weather", "air")]
    rows = [
        {
            "post_id": "KT1001",
            "stream": QUANTITIES[name].stream,
            "boot_id": "00112233aabbccdd",
            "seq": number,
            "first_seq": 0,
            "event_time": START + timedelta(minutes=number),
            "quantity": name,
            "value": round(31.3 + 0.7 * number, 1),
            "flag": 1,
            "received_time": START + timedelta(minutes=number, seconds=1),
            "digest": number,
            "is_conflicting": False,
        }
        for name in names
        for number in range(count)
    ]
    frame: pl.DataFrame = pl.DataFrame(rows, schema=empty(OBSERVATIONS).schema)
    return frame


def test_each_minute_alone_is_what_it_is_among_others() -> None:
    """Polars' power gave a lone value other last digits than one of several: a power cut's recovery found it."""
    rows = observations(60)
    at_once = minutes(rows, empty(FOOTFALL))
    alone = [minutes(rows.filter(pl.col("seq") == number), empty(FOOTFALL)) for number in range(60)]
    by = ["quantity", "window_start"]
    assert_frame_equal(pl.concat(alone).sort(by), at_once.sort(by), check_exact=True)
    energies = at_once.drop_nulls("energy_sum")
    assert energies["energy_sum"].to_list() == [10.0 ** (level / 10) for level in energies["last_value"]]
