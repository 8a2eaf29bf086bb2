"""`python -m pipelines run`: clean, aggregate and release what has landed; `stream`: the same as an unbounded Beam
job; `backfill`: a span of it, in several processes; `replay-quarantine` and `rebuild`: judge again what was judged
before; `explain`: print the graph."""

import os
import signal
from pathlib import Path
from typing import IO, Any

from contracts import settings
from contracts.layout import Layout, try_lock
from pipelines.processes import cores, quiet_beam


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    quiet_beam()
    from pipelines import again, explain, live, stream, supervision
    from pipelines.backfill import backfill
    from pipelines.config import from_environment, parser
    from pipelines.stages import Setup, registry

    arguments = parser().parse_args(argv)
    if arguments.verb == "explain":
        print(explain.graph_text(Setup(root=Path(), registry=Path())))
        return 0
    config = from_environment(os.environ, arguments)
    engine = None
    if arguments.verb == "stream":
        engine = supervision.engine(os.environ, argv, arguments.runner, arguments.prism, arguments.environment)
    settings.writable_folder(config.layout.lake)
    registry(config.registry)
    with _lake(config.layout) as lock:
        if arguments.verb == "replay-quarantine":
            return again.replay_quarantine(config.setup, arguments.reason or [], arguments.since, arguments.dry_run)
        if arguments.verb == "rebuild":
            return again.rebuild(config.setup, arguments.since, arguments.dry_run)
        stop = live.StopFlag()
        signal.signal(signal.SIGTERM, stop.set)
        signal.signal(signal.SIGINT, stop.set)
        if arguments.verb == "backfill":
            since, until, processes = arguments.since, arguments.until, arguments.processes
            if since and until and since >= until:
                raise settings.SettingError(f"--from {since.isoformat()} does not lie before --to {until.isoformat()}")
            if processes is not None and processes < 1:
                raise settings.SettingError(f"--processes {processes} is not usable: 1 or more")
            return backfill(config.setup, since, until, processes or cores(), lock, stop)
        return live.run(config, stop) if engine is None else stream.run(config, engine, lock, stop)


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
