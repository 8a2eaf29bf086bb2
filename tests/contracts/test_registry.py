"""The registry answers what stood where at a moment, and a changed file is taken up without a restart."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.registry import Lamppost, Registry, RegistryFile, load_registry, save_registry
from contracts.settings import SettingError
from contracts.times import from_us, to_us
from pipelines import stages
from tests.pipelines.raw_log import registry_file

POST = registry_file().lampposts[0]


def spans(bounds: list[int]) -> list[Lamppost]:
    """Entries [b0, b1), [b2, b3) ... of one post, minutes of 2026; the last may have no end."""
    moments = [datetime(2026, 1, 1, minute // 60, minute % 60, tzinfo=UTC) for minute in bounds]
    pairs = [(moments[at], moments[at + 1] if at + 1 < len(moments) else None) for at in range(0, len(moments), 2)]
    return [msgspec.structs.replace(POST, valid_from=start, valid_to=end) for start, end in pairs]


@given(st.lists(st.integers(0, 1400), min_size=1, max_size=7, unique=True), st.integers(0, 1439))
def test_a_look_up_finds_the_span_that_holds_the_moment(bounds: list[int], minute: int) -> None:
    entries = spans(sorted(bounds))
    moment = datetime(2026, 1, 1, minute // 60, minute % 60, tzinfo=UTC)
    want = [
        entry for entry in entries if entry.valid_from <= moment and (entry.valid_to is None or moment < entry.valid_to)
    ]
    registry = Registry(RegistryFile(version=1, lampposts=tuple(reversed(entries))))
    found = registry.at(POST.post_id, to_us(moment))
    assert found == (want[0] if want else None)
    assert registry.valid(to_us(moment)) == want


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "registry" / "lampposts.json"
    save_registry(path, registry_file())
    assert load_registry(path).file == registry_file()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1}', b'{"version":1,"lampposts":[{"post_id":"X"}]}'])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lampposts.json"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=r"lampposts\.json"):
        load_registry(path)


def test_a_changed_file_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "lampposts.json"
    save_registry(path, registry_file())
    assert stages.registry(path).version == 1
    save_registry(path, RegistryFile(version=2, lampposts=registry_file().lampposts[:1]))
    assert stages.registry(path).version == 2


@given(st.integers(0, 253_402_300_799_999_999))
def test_microseconds_round_trip(microseconds: int) -> None:
    assert to_us(from_us(microseconds)) == microseconds
