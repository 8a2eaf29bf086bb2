"""The macros: one file each in `sql/macros/`, with first lines like those of a view.

    -- Meaning in one or more lines.
    -- Parameter name [unit]: description, in the order of the call
    -- Gives: what the value of a scalar macro is
    -- Grain: what one row of a table macro is; it has `-- Key:` and `-- Column` lines as well

They stand in the schema main, so that any tool finds them without one. The body of a scalar macro reads no table: it
can be used around aggregates, in a view, and in a catalogue that is attached under any name. What it needs of the
contracts is written into it, where the body says `$name`. A table macro reads views by their schema, so in an attached
catalogue it needs `USE`.
"""

import re
from dataclasses import dataclass
from functools import cache

from contracts.aqhi import BANDS, EDITIONS, PARTICLES, Edition
from contracts.scales import SCALES, STRATEGIC_LIMIT_KMH, Scale
from warehouse.views import SQL, parse_head, quoted

MACROS = SQL / "macros"


@dataclass(frozen=True, kw_only=True)
class Macro:
    """A macro of the catalogue; `parameters` holds what is said of each, by name; `gives` is the rest of what is said:
    of the value, or of a table macro's rows, key and columns."""

    name: str
    meaning: str
    gives: str
    parameters: dict[str, str]
    body: str
    is_table: bool

    @property
    def statement(self) -> str:
        """The statement that makes it."""
        kind = "TABLE " if self.is_table else ""
        return f"CREATE MACRO main.{self.name}({', '.join(self.parameters)}) AS {kind}{self.body}"

    @property
    def comment(self) -> str:
        return f"{self.meaning} {self.gives} Parameters: {_listed(self.parameters)}."


def parse_macro(name: str, text: str) -> Macro:
    """A macro from its file. Raises ValueError when its first lines lack the meaning, a parameter or what it gives."""
    head = parse_head(text)
    is_table = {"Grain", "Key"} <= head.titles.keys()
    if not head.meaning or not head.named["Parameter"] or is_table == ("Gives" in head.titles):
        raise ValueError(
            f"{name}.sql must begin with its meaning, a `-- Parameter`, and `-- Gives:` or `-- Grain:` and `-- Key:`"
        )
    gives = f"Gives: {head.titles.get('Gives')}."
    if is_table:
        columns = _listed(head.named["Column"])
        gives = f"Grain: {head.titles['Grain']}. Key: {head.titles['Key']}. Columns: {columns}."
    return Macro(
        name=name,
        meaning=head.meaning,
        gives=gives,
        parameters=head.named["Parameter"],
        body=re.sub(r"\$(\w+)", lambda found: _FACTS[found[1]], head.body),
        is_table=is_table,
    )


def _listed(named: dict[str, str]) -> str:
    return "; ".join(f"{name}: {said.replace('. [', ' [').rstrip('.')}" for name, said in named.items())


def _step(scale: Scale, number: str) -> str:
    """Name of the step that a number lies in; null below the first."""
    above = ">=" if scale.is_low_included else ">"
    steps = (f"WHEN {number} {above} {step.low} THEN {quoted(step.name)}" for step in reversed(scale.steps))
    return f"CASE {' '.join(steps)} END"


def _band(edition: Edition) -> str:
    """Band of the added risk of concentrations that are named like their quantities."""
    risks = {name: f"(exp({beta} * {name}) - 1) * 100" for name, beta in edition.betas.items()}
    particles = f"greatest({', '.join(risks.pop(name) for name in PARTICLES)})"
    added = " + ".join((*risks.values(), particles))
    bands = zip(edition.upper_pct, BANDS, strict=False)
    steps = (f"WHEN {added} <= {upper} THEN {quoted(band)}" for upper, band in bands)
    return f"CASE {' '.join(steps)} ELSE {quoted(BANDS[-1])} END"


def _by_edition() -> str:
    """The band by the edition that holds for a window's end; null before the first."""
    editions = (
        f"WHEN window_end > TIMESTAMPTZ {quoted(edition.valid_from.isoformat())} THEN {_band(edition)}"
        for edition in reversed(EDITIONS)
    )
    return f"CASE {' '.join(editions)} END"


_FACTS = {
    "strategic_limit_kmh": str(STRATEGIC_LIMIT_KMH),
    "strategic_step": _step(SCALES["strategic roads"], "speed_kmh"),
    "urban_step": _step(SCALES["urban roads"], "speed_kmh"),
    "aqhi_band": _by_edition(),
}


@cache
def sql_macros() -> tuple[Macro, ...]:
    """Every macro in `sql/macros/`."""
    return tuple(parse_macro(path.stem, path.read_text("utf-8")) for path in sorted(MACROS.glob("*.sql")))
