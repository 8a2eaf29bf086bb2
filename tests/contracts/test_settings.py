"""Settings are read as they are meant, or refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import settings
from contracts.settings import SettingError


def test_unset_and_empty_variables_are_the_default() -> None:
    assert settings.read({}, "LAMPLIGHT_X", 5, int) == 5
    assert settings.read({"LAMPLIGHT_X": ""}, "LAMPLIGHT_X", 5, int) == 5
    assert settings.read({"LAMPLIGHT_X": "6"}, "LAMPLIGHT_X", 5, int) == 6


@pytest.mark.parametrize(
    ("parse", "text"),
    [(settings.port, "0"), (settings.port, "65536"), (settings.port, "x"), (settings.positive, "0"),
     (settings.positive, "nan"), (settings.positive, "inf"), (settings.positive, "-1")],
)  # fmt: skip
def test_a_wrong_value_names_its_variable(parse: object, text: str) -> None:
    with pytest.raises(SettingError, match="LAMPLIGHT_X"):
        settings.read({"LAMPLIGHT_X": text}, "LAMPLIGHT_X", None, parse)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a%20b", "a[d]", "a^b", "a|b", "a\\b", "a\nb"])
def test_a_data_root_that_delta_does_not_take_is_one_line(tmp_path: Path, name: str) -> None:
    for environ, given in (({"LAMPLIGHT_DATA": str(tmp_path / name)}, None), ({}, tmp_path / name)):
        with pytest.raises(SettingError, match="change LAMPLIGHT_DATA") as refused:
            settings.data_root(environ, given)
        assert len(str(refused.value).splitlines()) == 1


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = settings.writable_folder(tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []


def test_a_reader_that_leaves_is_no_error() -> None:
    program = "from contracts import settings\nsettings.run(lambda _: [print('x' * 99) for _ in range(9999)] and 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert errors == b""
