"""Commands under strace, and what they did to the files below a folder and said over sockets, in order.

Why strace: it sees every call of Python, SQLite, pyarrow and delta-rs alike, whatever library made it, with the
bytes; an LD_PRELOAD shim misses what does not go through libc's names, and a FUSE file system needs root. With its
seccomp filter only the calls below stop a process. Strings are hexadecimal in the trace (-xx), so that no byte of
them can be taken for syntax; descriptors carry the path that they stand for (-y).

A call counts from its return, and an fsync covers what had returned before it began; what is sent counts from the
call, because it may have left then.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psutil
import pytest

from tests.durability.events import (
    Event,
    Linked,
    Made,
    Opened,
    Received,
    Removed,
    Renamed,
    Sent,
    Sought,
    SyncBegan,
    SyncEnded,
    Truncated,
    Written,
)

STRACE = shutil.which("strace")

_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
_SYNCS = ("fsync", "fdatasync", "sync", "syncfs")
_NAMES = ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat")
_FILES = ("open", "openat", "creat", "lseek", "truncate", "ftruncate")
_SOCKETS = ("sendto", "sendmsg", "recvfrom")
# what the model does not know: seen on one of our files, the trace cannot be judged
_UNKNOWN = (
    *("openat2", "fallocate", "copy_file_range", "sendfile", "splice", "mmap", "symlink", "symlinkat"),
    *("io_uring_setup", "recvmsg", "sendmmsg", "recvmmsg"),
)
CALLS = (*_WRITES, *_SYNCS, *_NAMES, *_FILES, *_SOCKETS, *_UNKNOWN)


class UnknownCallError(Exception):
    """A call on one of our files that the model of the disk does not know."""


_OPTIONS = ("-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "1000000000", "-e", "signal=none")


@lru_cache
def _hindrance() -> str:
    """Why nothing can be traced here; empty when it can."""
    if STRACE is None:
        return "strace is not installed (Debian: apt install strace)"
    tried = subprocess.run([STRACE, *_OPTIONS, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace does not work here: {tried.stderr.strip()}" if tried.returncode else ""


def need_strace() -> None:
    """Skip the test where strace is missing or may not trace; in CI, which installs it, fail."""
    if reason := _hindrance():
        if os.environ.get("LAMPLIGHT_CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Traced:
    """Commands that run at once under one strace, so that all they do has one order."""

    def __init__(self, commands: list[list[str]], out: Path, environment: Mapping[str, str], folder: Path):
        if STRACE is None:
            raise RuntimeError("strace is not installed")
        self.out = out
        script = "".join(f"{shlex.join(command)} & " for command in commands) + "wait"
        self._process = subprocess.Popen(
            [STRACE, *_OPTIONS, "-e", "trace=" + ",".join(CALLS), "-o", str(out), "sh", "-c", script],
            env=dict(environment),
            cwd=folder,
        )

    @property
    def stages(self) -> list[psutil.Process]:
        """The processes of the commands, without the shell that started them."""
        if self._process.poll() is not None:
            return []
        return [
            stage for shell in psutil.Process(self._process.pid).children() for stage in shell.children(recursive=True)
        ]

    def stop(self, patience_s: float = 60.0) -> None:
        """End the commands as a service manager would; the trace is whole then."""
        for stage in self.stages:
            stage.terminate()
        self.wait(patience_s)

    def wait(self, patience_s: float = 120.0) -> int:
        """Until all commands have ended; strace's exit code."""
        try:
            return self._process.wait(patience_s)
        finally:
            if self._process.poll() is None:
                for stage in self.stages:
                    stage.kill()
                self._process.wait(20)


_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)(?:<([^>]*)>)?[^)]*(?:\([^)]*\))?$", re.S)
_DESCRIPTOR = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")
_STRING = re.compile(r'"([^"]*)"')
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>")


def _text(hexadecimal: str) -> str:
    return os.fsdecode(_bytes(hexadecimal))


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


@dataclass
class _Call:
    """A call's name and arguments, as strace writes them."""

    name: str
    arguments: str
    descriptor: int = -1
    place: str = ""
    strings: list[str] = field(default_factory=list)

    @staticmethod
    def of(text: str) -> "_Call":
        name, _, arguments = text.partition("(")
        call = _Call(name, arguments)
        first = _DESCRIPTOR.match(arguments)
        if first and first[1] != "AT_FDCWD":
            call.descriptor, call.place = int(first[1]), _text(first[2])
        call.strings = _STRING.findall(arguments)
        return call

    def paths(self) -> list[Path]:
        """The paths among the arguments; a relative one stands in the folder of the descriptor before it."""
        folders = [_text(folder) for _, folder in _DESCRIPTOR.findall(self.arguments)]
        found = []
        for index, string in enumerate(self.strings):
            folder = folders[min(index, len(folders) - 1)] if folders else "/"
            found.append(Path(folder) / _text(string))
        return found

    @property
    def data(self) -> bytes:
        return b"".join(map(_bytes, self.strings))


def parse(lines: Iterator[str], root: Path) -> list[Event]:
    """The events of a trace that concern files below `root` or sockets, in order."""
    return _Parser(root).parse(lines)


class _Parser:
    def __init__(self, root: Path):
        self.root = root
        self.events: list[Event] = []
        self.calls = 0
        self._open: dict[str, tuple[str, SyncBegan | Sent | None]] = {}

    def parse(self, lines: Iterator[str]) -> list[Event]:
        for line in lines:
            thread, _, text = line.rstrip("\n").partition(" ")
            text = text.lstrip()
            if text.endswith(_UNFINISHED):
                head = text.removesuffix(_UNFINISHED)
                self._open[thread] = (head, self._begin(_Call.of(head)))
            elif (resumed := _RESUMED.match(text)) is not None:
                head, begun = self._open.pop(thread)
                self._end(head + text[resumed.end() :], begun)
            elif text[:1].isalpha():
                self._end(text, self._begin(_Call.of(text)))
        return [event for event in self.events if not (isinstance(event, Sent) and not event.data)]

    def _is_ours(self, path: Path) -> bool:
        return path.is_relative_to(self.root)

    def _begin(self, call: _Call) -> SyncBegan | Sent | None:
        """Note the moment of calls of which it counts; their outcome comes with their return."""
        begun: SyncBegan | Sent | None = None
        if call.name in _SYNCS:
            self.calls += 1
            is_whole = call.name in ("sync", "syncfs")
            if is_whole or self._is_ours(Path(call.place)):
                begun = SyncBegan(None if is_whole else Path(call.place), self.calls)
        elif call.name in (*_WRITES, *_SOCKETS) and call.name != "recvfrom" and call.place.startswith("socket:"):
            begun = Sent(call.place, b"")
        if begun is not None:
            self.events.append(begun)
        return begun

    def _end(self, text: str, begun: SyncBegan | Sent | None) -> None:
        match = _CALL.match(text)
        if match is None:
            raise UnknownCallError(text[:400])
        if match[3] == "?" or match[3].startswith("-"):
            return
        call = _Call.of(f"{match[1]}({match[2]}")
        result = int(match[3], 0)
        if isinstance(begun, SyncBegan):
            self.events.append(SyncEnded(begun.call))
        elif isinstance(begun, Sent):
            begun.data = call.data[:result]
        elif call.name == "recvfrom":
            self.events.append(Received(call.place, call.data[:result]))
        else:
            self._file(call, result)

    def _file(self, call: _Call, result: int) -> None:
        name = call.name
        place = Path(call.place)
        if name in _UNKNOWN:
            self._refuse_unknown(call)
        elif call.descriptor >= 0 and name in (*_WRITES, "lseek", "ftruncate"):
            if self._is_ours(place):
                self.events.append(_change(call, place, result))
        elif name not in _SYNCS and call.strings:
            paths = call.paths()
            if any(map(self._is_ours, paths)):
                self.events.extend(_named(call, paths, result))

    def _refuse_unknown(self, call: _Call) -> None:
        is_ours = any(self._is_ours(Path(_text(path))) for _, path in _DESCRIPTOR.findall(call.arguments))
        if call.name == "mmap":
            # SQLite's -shm files are rebuilt after a crash and never trusted
            is_shared = "MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments
            is_ours = is_ours and is_shared and "\\x2d\\x73\\x68\\x6d>" not in call.arguments
        if is_ours or call.name in ("io_uring_setup", "sendmmsg"):
            raise UnknownCallError(f"{call.name}({call.arguments[:400]}")


def _change(call: _Call, path: Path, result: int) -> Event:
    if call.name == "lseek":
        return Sought(path, call.descriptor, result)
    if call.name == "ftruncate":
        return Truncated(path, int(call.arguments.rpartition(", ")[2]))
    at = None
    if call.name == "pwrite64":
        at = int(call.arguments.rpartition(", ")[2])
    elif call.name.startswith("pwritev"):
        at = int(call.arguments.rpartition("], ")[2].split(", ")[1])
    return Written(path, call.descriptor, at, call.data[:result])


def _named(call: _Call, paths: list[Path], result: int) -> Iterator[Event]:
    name = call.name
    if name in ("open", "openat", "creat"):
        flags = call.arguments.rpartition('"')[2]
        if "O_SYNC" in flags or "O_DSYNC" in flags or "O_TMPFILE" in flags:
            raise UnknownCallError(f"{name}({call.arguments[:400]}")
        is_new = name == "creat" or "O_CREAT" in flags
        if is_new or "O_WRONLY" in flags or "O_RDWR" in flags:
            yield Opened(paths[0], result, name == "creat" or "O_TRUNC" in flags, "O_APPEND" in flags)
    elif name == "truncate":
        yield Truncated(paths[0], int(call.arguments.rpartition(", ")[2]))
    elif name.startswith("mkdir"):
        yield Made(paths[0])
    elif name in ("rmdir", "unlink", "unlinkat"):
        yield Removed(paths[0])
    elif name.startswith("rename"):
        if "RENAME_EXCHANGE" in call.arguments:
            raise UnknownCallError(f"{name}({call.arguments[:400]}")
        yield Renamed(*paths)
    elif name.startswith("link"):
        yield Linked(*paths)
