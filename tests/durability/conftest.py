"""One traced run of the real stages, for all tests that look at it."""

import pytest

from tests.broker import need_mosquitto
from tests.durability.cuts import Run, record
from tests.durability.trace import need_strace


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ingest, receipts and pipelines while forty faulty posts send what they stored."""
    need_mosquitto()
    need_strace()
    return record(tmp_path_factory.mktemp("busy"), 6)
