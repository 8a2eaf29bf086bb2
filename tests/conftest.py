"""Fixtures that several packages' tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Embedded, Mosquitto, need_mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto: `.port`, `.stop()`, `.kill()`, `.start()`."""
    need_mosquitto()
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def embedded_broker() -> Iterator[Embedded]:
    """A running embedded broker: `.port`, `.mqtt311_port`, `.stop()`, `.kill()`, `.start()`."""
    with Embedded() as broker:
        yield broker
