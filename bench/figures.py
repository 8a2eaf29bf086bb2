"""The benchmark output of DESIGN.md: one JSON line per figure on standard output."""

import json


def figure(
    bench: str, *, value: float, unit: str, against: float | None = None, ratio: float | None = None, **more: int
) -> None:
    """Print a figure. `against` is the other side in the same unit; `ratio` defaults to value / against; `more` says
    how it was measured."""
    line: dict[str, str | float] = {"bench": bench, "value": _rounded(value), "unit": unit}
    if against is not None:
        line["against"] = _rounded(against)
        ratio = value / against if ratio is None else ratio
    if ratio is not None:
        line["ratio"] = _rounded(ratio)
    print(json.dumps(line | more), flush=True)


def _rounded(value: float) -> float:
    """Four significant digits; whole numbers from a thousand on."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
