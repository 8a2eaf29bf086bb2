"""Fixtures that several packages' tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import MOSQUITTO, Embedded, Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto: `.port`, `.stop()`, `.kill()`, `.start()`."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: apt install mosquitto)")
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def embedded_broker() -> Iterator[Embedded]:
    """A running embedded broker: `.port`, `.mqtt311_port`, `.stop()`, `.kill()`, `.start()`."""
    with Embedded() as broker:
        yield broker
