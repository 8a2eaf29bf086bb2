"""What a disk holds after a power cut, from the file system calls before it, under the strictest reading of POSIX.

A file keeps what an fsync of it covered, as the bytes were when that fsync began. A name (created, renamed, linked,
removed) stays as the last fsync of its folder found it, so an unsynced rename leaves the old name; a folder is gone
with all that lies in it when its own name is not durable. Calls that had not returned at the cut did nothing.

A real disk keeps some of the rest as well, in any combination. With `luck`, each file also keeps a random part of its
unsynced writes (what lies between them reads as zeros) and each folder a random number of its unsynced changes, oldest
first, as a journal does; so a name may be there without its content, and content without its name.
"""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.durability.events import (
    Event,
    Linked,
    Made,
    Opened,
    Removed,
    Renamed,
    Sought,
    SyncBegan,
    SyncEnded,
    Truncated,
    Written,
)

Tree = dict[str, bytes | None]
"""Content by path relative to the root; None for a folder."""


@dataclass(frozen=True, slots=True)
class Put:
    """Bytes at a place in a file."""

    at: int
    data: bytes


Change = Put | int
"""What a call did to a file: bytes written, or its new size."""


def content(changes: list[Change]) -> bytes:
    """A file's bytes after some changes to an empty one."""
    found = bytearray()
    for change in changes:
        if isinstance(change, int):
            del found[change:]
            found.extend(bytes(change - len(found)))
        else:
            found.extend(bytes(max(0, change.at - len(found))))
            found[change.at : change.at + len(change.data)] = change.data
    return bytes(found)


@dataclass(eq=False)
class File:
    """Changes in order; the first `durable` of them are on disk. `size` is that of the living file."""

    changes: list[Change] = field(default_factory=list)
    durable: int = 0
    size: int = 0
    _kept: tuple[int, bytes] = (0, b"")

    def change(self, change: Change) -> None:
        self.changes.append(change)
        self.size = change if isinstance(change, int) else max(self.size, change.at + len(change.data))

    def kept(self, luck: Random | None = None) -> bytes:
        """What a power cut leaves of it."""
        if luck is not None and (pending := self.changes[self.durable :]):
            share = luck.choice((0.0, 0.5, 1.0))
            survivors = [_torn(change, luck) for change in pending if luck.random() < share]
            return content(self.changes[: self.durable] + survivors)
        if self._kept[0] != self.durable:
            self._kept = (self.durable, content(self.changes[: self.durable]))
        return self._kept[1]


def _torn(change: Change, luck: Random) -> Change:
    if isinstance(change, Put) and luck.random() < 0.25:
        return Put(change.at, change.data[: luck.randrange(len(change.data) + 1)])
    return change


@dataclass(eq=False)
class Folder:
    """Changes of names in order, each atomic (a rename changes two); the first `durable` of them are on disk."""

    live: "dict[str, Node]" = field(default_factory=dict)
    changes: "list[dict[str, Node | None]]" = field(default_factory=list)
    durable: int = 0
    _kept: "dict[str, Node]" = field(default_factory=dict)

    def change(self, **names: "Node | None") -> None:
        self.changes.append(names)
        _rename(self.live, names)

    def sync(self, upto: int) -> None:
        for names in self.changes[self.durable : upto]:
            _rename(self._kept, names)
        self.durable = max(self.durable, upto)

    def kept(self, luck: Random | None = None) -> "dict[str, Node]":
        """The names that a power cut leaves in it."""
        pending = self.changes[self.durable :]
        if luck is None or not pending:
            return self._kept
        found = dict(self._kept)
        for names in pending[: luck.choice((0, len(pending), luck.randrange(len(pending) + 1)))]:
            _rename(found, names)
        return found


Node = File | Folder


def _rename(names: dict[str, Node], changes: "dict[str, Node | None]") -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """Everything below `root`: what lies there at the start (or `before`) is durable, and every event of a trace is
    applied to it.

    Where a descriptor stands in its file is kept by its number and the file: two processes that write one file at
    once through equal numbers would be confused; no two of ours write one file.
    """

    def __init__(self, root: Path, before: "Tree | None" = None):
        self.root = root
        self.top = _durable(read(root) if before is None else before)
        self._at: dict[tuple[int, File], int] = {}
        self._appending: set[tuple[int, File]] = set()
        self._begun: dict[int, list[tuple[Node, int]]] = {}

    def live(self) -> Tree:
        """What processes see."""
        return self._tree(lambda folder: folder.live, lambda file: content(file.changes))

    def live_file(self, path: str) -> bytes:
        """A file as processes see it."""
        return content(self._file(self.root / path).changes)

    def kept(self, luck: Random | None = None) -> Tree:
        """What a power cut now leaves."""
        return self._tree(lambda folder: folder.kept(luck), lambda file: file.kept(luck))

    def kept_files(self, below: str) -> list[tuple[str, File]]:
        """Files that have a durable name below a folder: path relative to that folder, file."""
        node: Node | None = self.top
        for part in Path(below).parts:
            node = node.kept().get(part) if isinstance(node, Folder) else None
        return list(_walk(node, lambda folder: folder.kept(), "")) if isinstance(node, Folder) else []

    def apply(self, event: Event) -> None:
        """What a call did. Events of a trace that are not about files change nothing."""
        match event:
            case Opened():
                self._open(event)
            case Written():
                self._write(event)
            case Sought():
                if isinstance(node := self._node(event.path), File):  # a folder is listed from its beginning
                    self._at[event.descriptor, node] = event.at
            case Truncated():
                self._file(event.path).change(event.size)
            case Made():
                folder, name = self._place(event.path)
                folder.change(**{name: Folder()})
            case Removed():
                folder, name = self._place(event.path)
                folder.change(**{name: None})
            case Linked():
                folder, name = self._place(event.new)
                folder.change(**{name: self._node(event.old)})
            case Renamed():
                self._rename(event.old, event.new)
            case SyncBegan():
                nodes = self._all() if event.path is None else [self._node(event.path)]
                self._begun[event.call] = [(node, len(node.changes)) for node in nodes]
            case SyncEnded():
                for node, upto in self._begun.pop(event.call):
                    if isinstance(node, Folder):
                        node.sync(upto)
                    else:
                        node.durable = max(node.durable, upto)

    def _open(self, event: Opened) -> None:
        folder, name = self._place(event.path)
        node = folder.live.get(name)
        if node is None:
            node = File()
            folder.change(**{name: node})
        if isinstance(node, Folder):
            return
        if event.is_truncating and node.size:
            node.change(0)
        place = (event.descriptor, node)
        self._at[place] = 0
        (self._appending.add if event.is_appending else self._appending.discard)(place)

    def _write(self, event: Written) -> None:
        file = self._file(event.path)
        place = (event.descriptor, file)
        at = event.at
        if at is None:
            at = file.size if place in self._appending else self._at.get(place, 0)
            self._at[place] = at + len(event.data)
        file.change(Put(at, event.data))

    def _rename(self, old: Path, new: Path) -> None:
        (source, before), (target, after) = self._place(old), self._place(new)
        node = source.live[before]
        if source is target:
            source.change(**{before: None, after: node})
        else:
            target.change(**{after: node})
            source.change(**{before: None})

    def _place(self, path: Path) -> tuple[Folder, str]:
        folder = self._node(path.parent)
        assert isinstance(folder, Folder), path
        return folder, path.name

    def _node(self, path: Path) -> Node:
        node: Node = self.top
        for part in path.relative_to(self.root).parts:
            assert isinstance(node, Folder), path
            node = node.live[part]
        return node

    def _file(self, path: Path) -> File:
        node = self._node(path)
        assert isinstance(node, File), path
        return node

    def _all(self) -> list[Node]:
        found: list[Node] = []
        waiting: list[Node] = [self.top]
        while waiting:
            node = waiting.pop()
            found.append(node)
            if isinstance(node, Folder):
                waiting.extend(node.live.values())
        return found

    def _tree(self, names, bytes_of) -> Tree:  # type: ignore[no-untyped-def]
        return {
            path: None if isinstance(node, Folder) else bytes_of(node)
            for path, node in _walk(self.top, names, "", with_folders=True)
        }


def _walk(folder: Folder, names, prefix: str, with_folders: bool = False):  # type: ignore[no-untyped-def]
    for name, node in names(folder).items():
        path = f"{prefix}{name}"
        if isinstance(node, Folder):
            if with_folders:
                yield path, node
            yield from _walk(node, names, f"{path}/", with_folders)
        else:
            yield path, node


def _durable(tree: Tree) -> Folder:
    """Folders and files that are on disk as they stand."""
    folders = {"": Folder()}
    for path in sorted(tree):
        data = tree[path]
        parent, _, name = path.rpartition("/")
        node: Node = Folder() if data is None else File([Put(0, data)], 1, len(data), (1, data))
        if isinstance(node, Folder):
            folders[path] = node
        folders[parent].change(**{name: node})
    for folder in folders.values():
        folder.sync(len(folder.changes))
    return folders[""]


def read(folder: Path) -> Tree:
    """A folder as it is, in the same form."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def lay(tree: Tree, folder: Path) -> Path:
    """Write a tree out into a fresh folder."""
    folder.mkdir(parents=True)
    for path, data in tree.items():
        if data is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    return folder
