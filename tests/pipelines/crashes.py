"""A process that dies between two commits to the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from pipelines import commit, exchange, lake


@dataclass
class Life:
    """How many commits were made."""

    commits: int = 0


@contextmanager
def dying_after(commits: int, death: type[BaseException] = KeyboardInterrupt) -> Iterator[Life]:
    """Within, the commit after so many raises `death` instead."""
    life = Life()

    def dying(*args: object) -> int:
        if life.commits == commits:
            raise death
        life.commits += 1
        return put(*args)  # type: ignore[arg-type]

    def dying_exchange(*args: object) -> int:
        if life.commits == commits:
            raise death
        life.commits += 1
        return exchanged(*args)  # type: ignore[arg-type]

    put, exchanged = lake.put, commit.commit
    with mock.patch.object(lake, "put", dying), mock.patch.object(exchange, "commit", dying_exchange):
        yield life
