"""The notebooks run from end to end on a small catalogue, without a browser, and leave Markdown with pictures."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.warehouse import generated_day as day
from tests.warehouse.lake_samples import config_of
from warehouse.catalogue import publish

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
PYTHON = ROOT / ".venv-notebooks" / "bin" / "python"
NAMES = ("city_day", "air_and_fleet")
PICTURE = re.compile(r"!\[[^]]+\]\((\w+\.png)\)")

needs_marimo = pytest.mark.skipif(
    not PYTHON.exists() and not os.environ.get("LAMPLIGHT_CI"), reason="marimo is not installed: make notebooks-env"
)


def execute(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    notebooks = [str(NOTEBOOKS / f"{name}.py") for name in NAMES]
    environ = {**os.environ, "LAMPLIGHT_DATA": str(root), "PYTHONPATH": str(ROOT)}
    command = [str(PYTHON), str(NOTEBOOKS / "execute.py"), *notebooks, "--out", str(out)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)


@needs_marimo
def test_notebooks_run_on_a_small_catalogue(tmp_path: Path) -> None:
    day.build(tmp_path, 1)
    done = execute(tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    for name, count in zip(NAMES, (3, 4), strict=True):
        written = (tmp_path / f"{name}.md").read_text("utf-8")
        pictures = PICTURE.findall(written)
        assert len(pictures) == count
        assert all((tmp_path / picture).stat().st_size > 5_000 for picture in pictures)
        assert "March 2025" in written


@needs_marimo
def test_a_catalogue_that_is_empty_or_missing_is_one_line(tmp_path: Path) -> None:
    for what in ("no catalogue", "no traffic yet"):
        done = execute(tmp_path, tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert what in done.stderr
        assert "LAMPLIGHT_DATA" in done.stderr
        publish(config_of(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_what_the_notebook_says(name: str) -> None:
    """Pictures are there and small; the code shown is the notebook's."""
    written = (NOTEBOOKS / f"{name}.md").read_text("utf-8")
    source = (NOTEBOOKS / f"{name}.py").read_text("utf-8")
    for picture in PICTURE.findall(written):
        assert 0 < (NOTEBOOKS / picture).stat().st_size < 500_000
    lines = {line.strip() for line in source.splitlines()}
    for code in re.findall(r"```python\n(.*?)\n```", written, re.DOTALL):
        assert {line.strip() for line in code.splitlines()} <= lines
