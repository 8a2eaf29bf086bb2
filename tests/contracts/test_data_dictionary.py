"""The data dictionary cannot drift: it is what the contracts print, and it names all of them."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from contracts import payloads
from contracts.dictionary import markdown
from contracts.feeds import FORMATS
from contracts.products import PRODUCTS
from contracts.quantities import QUANTITIES
from contracts.schemas import TABLES
from contracts.streams import STREAMS

ROOT = Path(__file__).parents[2]


def test_the_committed_file_is_what_the_contracts_print() -> None:
    printed = subprocess.run([sys.executable, "-m", "contracts"], cwd=ROOT, check=True, capture_output=True).stdout
    committed = (ROOT / "docs" / "data_dictionary.md").read_bytes()
    assert printed == committed, "docs/data_dictionary.md is out of date: run `make docs`"


@pytest.mark.parametrize(
    "schema", [*(row.schema for row in TABLES.values()), *(row.schema for row in PRODUCTS.values())]
)
def test_every_field_has_a_unit_and_a_description_that_stand_in_it(schema: object) -> None:
    text = markdown()
    for field in schema:  # type: ignore[attr-defined]
        assert b"unit" in field.metadata
        assert field.metadata[b"description"].decode().replace("|", "\\|") in text


def test_everything_that_the_contracts_name_stands_in_it() -> None:
    text = markdown()
    names = [*QUANTITIES, *(f"`{reason.value}`" for reason in payloads.Reason), *FORMATS.values()]
    names += [f"### {name}\n" for name in (*STREAMS, *TABLES)] + [f"### {row.title}\n" for row in PRODUCTS.values()]
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize("struct", [*payloads.Payload.__args__, payloads.Lane, payloads.ClassCounts])
def test_every_payload_field_stands_in_it(struct: type[msgspec.Struct]) -> None:
    section = markdown().partition("## Payloads")[2].partition("## Tables")[0]
    assert [name for name in struct.__struct_fields__ if f"| `{name}` |" not in section] == []
