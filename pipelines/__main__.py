"""`python -m pipelines run`: clean, aggregate and release what has landed; `stream`: the same as an unbounded Beam
job; `backfill`: a span of it, in several processes; `replay-quarantine` and `rebuild`: judge again what was judged
before; `tidy`: a round of housekeeping; `explain`: print the graph."""

import os
import signal
from argparse import Namespace
from pathlib import Path
from threading import Event
from typing import IO, TYPE_CHECKING, Any

from contracts import settings
from contracts.layout import Layout, try_lock
from pipelines.processes import cores, quiet_beam

if TYPE_CHECKING:
    from pipelines.config import Config


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    quiet_beam()
    # Beam takes seconds to import, and the verbs that do without it do not wait for that
    from pipelines.config import from_environment, parser
    from pipelines.stages import Setup, registry

    arguments = parser().parse_args(argv)
    if arguments.verb == "explain":
        from pipelines.explain import graph_text

        print(graph_text(Setup(root=Path(), registry=Path())))
        return 0
    config = from_environment(os.environ, arguments)
    if arguments.verb == "tidy":
        from pipelines import tidy

        return tidy.run(config.root, config.rules, arguments.dry_run)
    engine = None
    if arguments.verb == "stream":
        from pipelines import supervision

        engine = supervision.engine(os.environ, argv, arguments.runner, arguments.prism, arguments.environment)
    settings.writable_folder(config.layout.lake)
    registry(config.registry)
    with _lake(config.layout) as lock:
        if arguments.verb in ("replay-quarantine", "rebuild"):
            from pipelines import again

            if arguments.verb == "rebuild":
                return again.rebuild(config.setup, arguments.since, arguments.dry_run)
            return again.replay_quarantine(config.setup, arguments.reason or [], arguments.since, arguments.dry_run)
        if arguments.verb == "backfill":
            return _backfill(config, arguments, lock)
        from pipelines import live, stream

        stop = live.StopFlag()
        signal.signal(signal.SIGTERM, stop.set)
        signal.signal(signal.SIGINT, stop.set)
        return live.run(config, stop) if engine is None else stream.run(config, engine, lock, stop)


def _backfill(config: "Config", arguments: Namespace, lock: IO[Any]) -> int:
    from pipelines.backfill import backfill

    since, until, processes = arguments.since, arguments.until, arguments.processes
    if since and until and since >= until:
        raise settings.SettingError(f"--from {since.isoformat()} does not lie before --to {until.isoformat()}")
    if processes is not None and processes < 1:
        raise settings.SettingError(f"--processes {processes} is not usable: 1 or more")
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    return backfill(config.setup, config.rules, since, until, processes or cores(), lock, stop.is_set)


def _lake(layout: Layout) -> IO[Any]:
    """The lake's lock. One process owns the positions: two would store them over each other."""
    lock = try_lock(layout.lake / "lock")
    if lock is None:
        raise settings.SettingError(
            f"another process (`pipelines run`?) works on {layout.lake}: stop it first, or change LAMPLIGHT_DATA"
        )
    return lock


if __name__ == "__main__":
    settings.run(main)
