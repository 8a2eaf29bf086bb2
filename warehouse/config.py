"""Settings of the warehouse."""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from contracts.layout import Layout
from contracts.settings import data_root, positive, read

T = TypeVar("T")
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what a verb's module adds its parser to

POLL_S = 0.05
_MEMORY = re.compile(r"\d+(\.\d+)? ?[KMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one query may take: seconds, memory as DuckDB writes it (more goes to the temporary folder), threads (None:
    as many as cores)."""

    timeout_s: float = 60.0
    memory: str = "2GB"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """`registry` is the lamppost registry, `districts` a GeoJSON file of the districts' boundaries, where there is one;
    `poll_s` is how often `publish --follow` looks for a new lake, seconds; `catalogue` is the file that questions go
    to."""

    root: Path
    registry: Path
    districts: Path | None
    poll_s: float
    catalogue: Path
    limits: Limits

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @staticmethod
    def build(environ: Mapping[str, str], root: Path | None = None, catalogue: Path | None = None) -> "Config":
        """From LAMPLIGHT_DATA, _REGISTRY, _DISTRICTS, _CATALOGUE_POLL_S and _QUERY_...; raises
        SettingError."""
        root = data_root(environ, root)
        return Config(
            root=root,
            registry=read(environ, "LAMPLIGHT_REGISTRY", Layout(root).registry, Path),
            districts=read(environ, "LAMPLIGHT_DISTRICTS", None, Path),
            poll_s=read(environ, "LAMPLIGHT_CATALOGUE_POLL_S", POLL_S, positive),
            catalogue=catalogue or Layout(root).catalogue,
            limits=Limits(
                timeout_s=read(environ, "LAMPLIGHT_QUERY_TIMEOUT_S", Limits.timeout_s, positive),
                memory=read(environ, "LAMPLIGHT_QUERY_MEMORY", Limits.memory, memory_size),
                threads=read(environ, "LAMPLIGHT_QUERY_THREADS", Limits.threads, thread_count),
            ),
        )


def memory_size(text: str) -> str:
    """A size of memory as DuckDB takes it; raises ValueError."""
    if not _MEMORY.fullmatch(text.strip()):
        raise ValueError("a size is needed, like 500MB or 4GB")
    return text.strip()


def thread_count(text: str) -> int | None:
    """A number of threads; raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError("one thread is the least")
    return number


def limit_options(parser: argparse.ArgumentParser) -> None:
    """The options of verbs that run others' queries."""
    parser.add_argument(
        "--timeout", metavar="S", help=f"seconds a query may take (LAMPLIGHT_QUERY_TIMEOUT_S, {Limits.timeout_s:g})"
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help=f"memory it may take (LAMPLIGHT_QUERY_MEMORY, {Limits.memory}); more is spilled",
    )
    parser.add_argument("--threads", metavar="N", help="threads (LAMPLIGHT_QUERY_THREADS, as many as cores)")


def limits_of(config: Config, options: argparse.Namespace) -> Limits:
    """The limits that options say, else the settings; raises SettingError."""

    def given(name: str, parse: Callable[[str], T], default: T) -> T:
        return read({f"--{name}": getattr(options, name) or ""}, f"--{name}", default, parse)

    return replace(
        config.limits,
        timeout_s=given("timeout", positive, config.limits.timeout_s),
        memory=given("memory", memory_size, config.limits.memory),
        threads=given("threads", thread_count, config.limits.threads),
    )
