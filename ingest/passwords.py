"""Mosquitto's password file: `name:hash` lines, the hashes made by Mosquitto's own tool."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from contracts.settings import SettingError
from ingest.folder import PRIVATE, store

_SECRET_BYTES = 32


class Passwords:
    """The password file of a broker folder."""

    def __init__(self, path: Path):
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._hashes = dict(line.split(":", 1) for line in text.splitlines() if line)

    @property
    def names(self) -> frozenset[str]:
        """Who has a password."""
        return frozenset(self._hashes)

    def add(self, names: Iterable[str], credentials: Path) -> None:
        """Make a password for each name, in `{name}.password` in the folder of credentials; they count once all lie
        there. Raises SettingError when Mosquitto's tool is missing or fails."""
        made = {name: secrets.token_urlsafe(_SECRET_BYTES) for name in names}
        hashes = _hashed(made)
        for name, password in made.items():
            store(credentials / f"{name}.password", f"{password}\n".encode(), PRIVATE)
        self._hashes |= hashes
        self.save()

    def remove(self, names: Iterable[str]) -> None:
        """Take the passwords of these names away."""
        for name in names:
            del self._hashes[name]
        self.save()

    def save(self) -> None:
        """Replace the file; a broker needs one, be it empty."""
        lines = "".join(f"{name}:{self._hashes[name]}\n" for name in sorted(self._hashes))
        store(self._path, lines.encode(), PRIVATE)


def _hashed(passwords: dict[str, str]) -> dict[str, str]:
    """Hash by name. In a private file rather than as arguments, which every process of the machine can read."""
    if not passwords:
        return {}
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        raise SettingError("mosquitto_passwd is missing: install mosquitto, or use --certificate")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passwords"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, PRIVATE)) as handle:
            handle.writelines(f"{name}:{password}\n" for name, password in passwords.items())
        done = subprocess.run([tool, "-U", str(path)], capture_output=True, text=True, check=False)
        found = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines())
    if done.returncode or found.keys() != passwords.keys() or any(found[name] == passwords[name] for name in found):
        raise SettingError(f"mosquitto_passwd failed with exit code {done.returncode}: use Mosquitto 2.0 or later")
    return found
