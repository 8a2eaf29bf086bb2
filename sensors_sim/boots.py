"""What a device keeps on its disk over a reboot: its boot id and the highest seq that it has given, per stream."""

import os
from pathlib import Path

import msgspec

from contracts.layout import write_durably
from contracts.payloads import PreviousBoot
from contracts.settings import SettingError


def new_boot_id() -> str:
    """16 random hexadecimal digits; never from the seed, because no two boots may share one."""
    return os.urandom(8).hex()


def load(folder: Path) -> dict[str, PreviousBoot]:
    """Previous boot per post id; empty for devices that were never on.

    Raises SettingError that names the file when it is broken.
    """
    path = folder / "boots.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, PreviousBoot])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise SettingError(f"the devices' memory {path} cannot be read ({error}): remove it") from error


def store(folder: Path, boots: dict[str, PreviousBoot]) -> None:
    """Replace the devices' memory durably."""
    write_durably(folder / "boots.json", msgspec.json.encode(boots))
