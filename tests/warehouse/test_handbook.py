"""What docs/warehouse.md shows can be asked."""

import re
from pathlib import Path

import pytest

from tests.warehouse.lake_samples import ask, config_of
from warehouse.catalogue import publish

HANDBOOK = Path(__file__).parents[2] / "docs" / "warehouse.md"
QUERIES = [
    query.strip()
    for block in re.findall(r"```sql\n(.*?)```", HANDBOOK.read_text("utf-8"), re.DOTALL)
    for query in block.split(";")
    if query.strip()
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    publish(config_of(root))
    return root


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_in_the_handbook_can_be_asked(empty: Path, query: str) -> None:
    assert ask(empty, query).columns
