"""The data dictionary as Markdown, rendered from the contracts: it cannot say what the code does not."""

import inspect
import re
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pyarrow as pa

from contracts import aqhi, feeds, layout, payloads, receipts, retention, topics
from contracts.implied import IMPLIED
from contracts.products import ATTRIBUTION, LICENCE, PRODUCTS
from contracts.quantities import QUANTITIES, Aggregation, Flag
from contracts.scales import SCALES
from contracts.schemas import TABLES
from contracts.streams import STREAMS

_LISTED = (payloads.SeqRange, payloads.OldestHeld)
_STREAM_STRUCTS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "traffic": (payloads.Traffic, payloads.Lane, payloads.ClassCounts),
    "pedestrian": (payloads.Pedestrian,),
    "weather": (payloads.Weather,),
    "air": (payloads.Air,),
    "dumping": (payloads.Dumping,),
    "status": (payloads.Birth, payloads.PreviousBoot, payloads.Heartbeat, *_LISTED, payloads.Will),
}
_HEAD = payloads.Message.__struct_fields__


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines] + [""]


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _kind(kind: Any) -> str:
    """A payload field's type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return _kind(kind.__origin__) + _bounds(kind.__metadata__[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is Literal:
        return ", ".join(f'"{argument}"' for argument in arguments)
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"object of {_kind(arguments[1])} by {_kind(arguments[0])}"
    if kind is type(None):
        return "null"
    names = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "datetime": "time"}
    name: str = kind.__name__
    return names.get(name, name)


def _bounds(meta: msgspec.Meta) -> str:
    said = []
    if meta.ge is not None or meta.le is not None:
        said.append(f"{'' if meta.ge is None else _number(meta.ge)}..{'' if meta.le is None else _number(meta.le)}")
    if meta.pattern:
        said.append(f"`{meta.pattern}`")
    if meta.max_length is not None:
        said.append(f"at most {meta.max_length} long")
    if meta.tz:
        said.append("RFC 3339 with an offset")
    return f" ({', '.join(said)})" if said else ""


_UNITS: dict[str, str] = {
    field.name: field.metadata[b"unit"].decode() for table in TABLES.values() for field in table.schema
}


def _unit(name: str) -> str:
    """A payload field's unit: the quantity's, or that of the column that it becomes."""
    if name in QUANTITIES:
        return QUANTITIES[name].unit
    return _UNITS.get(name, _UNITS.get(f"{name}_count", ""))


def _struct(struct: type[msgspec.Struct]) -> list[str]:
    rows = [
        [f"`{field.encode_name}`", _kind(field.type), "yes" if field.required else "no", _unit(field.name)]
        for field in msgspec.structs.fields(struct)
        if field.name not in _HEAD or struct is payloads.Will or not issubclass(struct, payloads.Message)
    ]
    # inherited docstrings are the head's own, said once
    text = _paragraph(struct.__doc__) if struct.__doc__ != payloads.Message.__doc__ else ""
    tag = struct.__struct_config__.tag
    if tag is not None:
        rows.insert(0, ["`kind`", f'"{tag}"', "yes", ""])
    return [f"#### {struct.__name__}", "", *([text, ""] if text else []), *_table(_FIELD_TITLES, rows)]


_FIELD_TITLES = ("field", "type", "required", "unit")


def _schema(schema: pa.Schema) -> list[str]:
    rows = [
        [
            f"`{field.name}`",
            str(field.type),
            "yes" if field.nullable else "no",
            field.metadata[b"unit"].decode(),
            field.metadata[b"description"].decode(),
        ]
        for field in schema
    ]
    return _table(("field", "type", "may be null", "unit", "description"), rows)


def _quantities() -> list[str]:
    rows = [
        [
            f"`{row.name}`",
            row.title,
            row.unit,
            row.stream,
            f"{_number(row.low)}..{_number(row.high)}",
            _number(row.resolution),
            row.aggregation.value,
            "yes" if row.is_open else "no",
            row.description,
        ]
        for row in QUANTITIES.values()
    ]
    titles = ("name", "title", "unit", "stream", "plausible", "resolution", "window value", "open", "description")
    methods = ", ".join(method.value for method in Aggregation)
    text = f"A value outside the plausible range keeps its row and gets flag {Flag.FAIL}. Window values: {methods}."
    return ["## Quantities", "", text, "", *_table(titles, rows)]


def _streams() -> list[str]:
    rows = [
        [
            row.name,
            "event" if row.cadence_s is None else row.cadence_s,
            "period [time, time + cadence)" if row.is_period else "moment",
            row.description,
        ]
        for row in STREAMS.values()
    ]
    lines = ["## Streams", "", *_table(("stream", "cadence_s", "time is", "description"), rows)]
    lines += ["## Topics", ""]
    lines += _table(
        ("topic", "who writes"),
        [
            (f"`{topics.device_topic('{post_id}', '{stream}')}`", "devices"),
            (f"`{topics.receipt_topic('{post_id}')}`", "the platform"),
            (f"`{topics.config_topic('{post_id}')}`", "the platform"),
        ],
    )
    return [
        *lines,
        f"A post id matches `{topics.POST_ID.pattern}`. Ingest subscribes to `{topics.SHARED_SUBSCRIPTION}`.",
        "",
    ]


def _payloads() -> list[str]:
    head = [
        [f"`{field.encode_name}`", _kind(field.type), "yes", _unit(field.name)]
        for field in msgspec.structs.fields(payloads.Message)
    ]
    lines = ["## Payloads", "", _paragraph(payloads.__doc__), ""]
    lines += [
        f"Schema version {payloads.SCHEMA_VERSION}, decoder version {payloads.DECODER_VERSION}. A failed sensor sends "
        f'"////" or {_number(payloads.SENTINEL)} in place of its value. Unknown fields are refused.',
        "",
        "### Every message but a will",
        "",
        _paragraph(payloads.Message.__doc__),
        "",
        *_table(_FIELD_TITLES, head),
    ]
    for stream, structs in _STREAM_STRUCTS.items():
        lines += [f"### {stream}", "", STREAMS[stream].description, ""]
        for struct in structs:
            lines += _struct(struct)
    return [*lines, "## Receipts", "", _paragraph(receipts.__doc__), "", *_struct(receipts.Receipt)]


def _tables() -> list[str]:
    lines = ["## Tables of the lake", ""]
    for table in TABLES.values():
        key = ", ".join(f"`{name}`" for name in table.key)
        lines += [f"### {table.name}", "", f"{table.description} Key: {key}. A row's block is the minute of "]
        lines[-1] += f"`{table.time}`."
        lines += ["", *_schema(table.schema)]
        if implied := IMPLIED.get(table.name):
            lines += ["In the files, not in the catalogue, a null stands for what the row says elsewhere:", ""]
            lines += _table(("null in", "stands for"), ([f"`{name}`", f"`{text}`"] for name, text in implied.items()))
    return lines


def _products() -> list[str]:
    lines = ["## Open products", "", f"Licence: {LICENCE}. Attribution: {ATTRIBUTION}.", ""]
    lines += _table(("format", "media type"), ([name, kind] for name, kind in feeds.FORMATS.items()))
    for product in PRODUCTS.values():
        key = ", ".join(f"`{name}`" for name in product.key)
        noise = "noised, drawn once" if product.is_noised else "exact"
        lines += [
            f"### {product.title}",
            "",
            f"`{feeds.latest_path(product.name, '{format}')}`. {product.description} ",
        ]
        lines[-1] += f"Windows of {product.period_s} s, {noise}. Cell: {key}."
        lines += ["", *_schema(product.schema)]
    return lines


def _reasons() -> list[str]:
    source = inspect.getsource(payloads.Reason)
    said = dict(re.findall(r'= "(\w+)"  # (.+)', source))
    flags = {
        Flag.GOOD: "good",
        Flag.NOT_EVALUATED: "not evaluated",
        Flag.SUSPECT: "suspect",
        Flag.FAIL: "fail",
        Flag.MISSING: "missing",
    }
    return [
        "## Reasons for quarantine",
        "",
        *_table(("reason", "meaning"), ([f"`{reason.value}`", said[reason.value]] for reason in payloads.Reason)),
        "## Quality flags (QARTOD)",
        "",
        *_table(("flag", "meaning"), flags.items()),
    ]


def _scales() -> list[str]:
    lines = ["## Scales", "", "In the catalogue: `scales`.", ""]
    lines += _table(
        ("scale", "unit", "steps", "source"),
        (
            [
                scale.name,
                scale.unit,
                ", ".join(
                    f"{step.name} ({step.colour}) {'from' if scale.is_low_included else 'above'} {_number(step.low)}"
                    for step in scale.steps
                ),
                scale.source,
            ]
            for scale in SCALES.values()
        ),
    )
    lines += ["## Air Quality Health Index", "", _paragraph(aqhi.__doc__), ""]
    lines += [f"A mean needs {aqhi.DATA_CAPTURE:.0%} of the promised values. In the catalogue: the view `aqhi`, and "]
    lines[-1] += "`aqhi_coefficients` and `aqhi_bands`."
    for edition in aqhi.EDITIONS:
        said = f"until {edition.valid_to:%Y-%m-%d}" if edition.valid_to else "on"
        lines += ["", f"From {edition.valid_from:%Y-%m-%d} {said} (Hong Kong): added risk in % up to", ""]
        upper = [*map(str, edition.upper_pct), "over"]
        lines += _table(aqhi.BANDS, [upper, [aqhi.health_risk(band) for band in aqhi.BANDS]])
        lines += _table(("pollutant", "beta, m3/ug"), ([f"`{name}`", beta] for name, beta in edition.betas.items()))
        lines.pop()
    return [*lines, ""]


def _retention() -> list[str]:
    lines = ["## Retention", "", _paragraph(retention.__doc__), ""]
    rows = (
        [
            f"`{rule.variable}`",
            ", ".join(f"`{name}`" for name in rule.tables),
            ", ".join(filter(None, rule.streams)) or "all",
            retention.EVER if rule.days is None else _number(rule.days),
            rule.reason,
        ]
        for rule in retention.RULES
    )
    return lines + _table(("variable", "tables", "streams", "days", "why"), rows)


def _layout() -> list[str]:
    tree = inspect.cleandoc(layout.__doc__ or "").partition("\n\n")[2]
    open_tree = inspect.cleandoc(feeds.__doc__ or "").partition("\n\n")[2]
    return [
        "## Files below the data root",
        "",
        "```",
        tree,
        "```",
        "",
        "Below `open/`:",
        "",
        "```",
        open_tree,
        "```",
        "",
    ]


def markdown() -> str:
    """The whole dictionary, ending with one line break."""
    lines = [
        "# Data dictionary",
        "",
        "Made by `make docs` from `contracts/`; a test holds this file to it. Times are UTC.",
        "",
        *_quantities(),
        *_streams(),
        *_payloads(),
        *_tables(),
        *_products(),
        *_reasons(),
        *_retention(),
        *_scales(),
        *_layout(),
    ]
    return "\n".join(lines).rstrip() + "\n"
