"""Who may import whom (ARCHITECTURE.md), read from the sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"contracts", "sensors_sim", "ingest", "pipelines", "warehouse", "api", "tests", "bench", "demo"}
MAY_IMPORT = {
    "contracts": set[str](),
    "sensors_sim": {"contracts"},
    "ingest": {"contracts"},
    "pipelines": {"contracts"},
    "warehouse": {"contracts"},
    "api": {"contracts", "warehouse"},
    "demo": {"contracts"},
}
IMPURE = {"apache_beam", "duckdb", "deltalake", "paho", "os", "time", "random"}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a source file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_meet_in_contracts_only(package: str) -> None:
    for path in sources(package):
        ours = {name.split(".")[0] for name in imports(path)} & OURS
        assert ours <= MAY_IMPORT[package] | {package}, path


def test_kernels_are_pure() -> None:
    for path in sources("pipelines/kernels"):
        names = imports(path)
        assert not {name.split(".")[0] for name in names} & IMPURE, path
        assert {name for name in names if name.startswith("pipelines")} <= {
            f"pipelines.kernels.{other.stem}" for other in sources("pipelines/kernels")
        }, path


def test_the_public_side_reads_open_only() -> None:
    for path in sources("api"):
        assert not imports(path) & {"contracts.segments", "deltalake", "sqlite3"}, path


def test_modules_stay_small() -> None:
    for package in MAY_IMPORT:
        for path in sources(package):
            assert path.read_text(encoding="utf-8").count("\n") <= 400, path


def test_nothing_names_this_machine_or_a_package_index() -> None:
    for name in ("requirements.lock", "requirements-flink.lock", "requirements-notebooks.lock"):
        lock = (ROOT / name).read_text()
        assert "://" not in lock
        assert "--hash=sha256:" in lock


def test_flink_workers_need_no_beam_of_ours() -> None:
    """Their environment pins another Beam: of ours, what `pipelines.flink` imports must not reach for it."""
    seen, left = set(), {"pipelines.flink"}
    while left:
        seen.add(name := left.pop())
        path = ROOT / (name.replace(".", "/") + ".py")
        names = imports(path) if path.exists() else set()
        assert not {one for one in names if one.split(".")[0] == "apache_beam"}, path
        left |= {one for one in names | _modules_of(path) if one.split(".")[0] in OURS} - seen


def _modules_of(path: Path) -> set[str]:
    """Modules that a file imports by name from a package."""
    if not path.exists():
        return set()
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
