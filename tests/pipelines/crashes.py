"""A process that dies between two commits to the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from deltalake import write_deltalake

from pipelines import exchange, lake


@dataclass
class Life:
    """How many commits were made."""

    commits: int = 0


@contextmanager
def dying_after(commits: int, death: type[BaseException] = KeyboardInterrupt) -> Iterator[Life]:
    """Within, the commit after so many raises `death` instead."""
    life = Life()

    def dying(*args: object, **kwargs: object) -> None:
        if life.commits == commits:
            raise death
        life.commits += 1
        write_deltalake(*args, **kwargs)  # type: ignore[call-overload]

    def dying_exchange(*args: object) -> None:
        if life.commits == commits:
            raise death
        life.commits += 1
        exchanged(*args)  # type: ignore[arg-type]

    exchanged = exchange.commit
    with mock.patch.object(lake, "write_deltalake", dying), mock.patch.object(exchange, "commit", dying_exchange):
        yield life
