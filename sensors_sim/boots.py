"""What a device keeps on its disk over a reboot, beside the journal: its boot, the highest seq that it has given per
stream, and what it has dropped and not yet told."""

import os
from pathlib import Path

import msgspec

from contracts.layout import write_durably
from contracts.payloads import PreviousBoot, SeqRange
from contracts.settings import SettingError


class Memory(msgspec.Struct, kw_only=True):
    """All of the fleet. It contains what the journal says before (`file`, `at`), and nothing of what follows."""

    file: int = 0
    at: int = 0
    posts: dict[str, PreviousBoot] = {}
    dropped: dict[str, list[SeqRange]] = {}


def new_boot_id() -> str:
    """16 random hexadecimal digits; never from the seed, because no two boots may share one."""
    return os.urandom(8).hex()


def load(folder: Path) -> Memory:
    """The devices' memory; empty for devices that were never on.

    Raises SettingError that names the file when it is broken.
    """
    path = folder / "boots.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory()
    except (OSError, msgspec.DecodeError) as error:
        raise SettingError(f"the devices' memory {path} cannot be read ({error}): remove it") from error


def store(folder: Path, memory: Memory) -> None:
    """Replace the devices' memory durably. Raises SettingError when the disk refuses."""
    try:
        write_durably(folder / "boots.json", msgspec.json.encode(memory))
    except OSError as error:
        raise SettingError(
            f"the devices' memory in {folder} cannot be written ({error.strerror}): make room or change LAMPLIGHT_DATA"
        ) from error
