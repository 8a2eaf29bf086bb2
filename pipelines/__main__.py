"""`python -m pipelines run`: clean, aggregate and release what has landed; `replay-quarantine` and `rebuild`: judge
again what was judged before."""

import logging
import os
import signal
from typing import IO, Any

from contracts import settings
from contracts.layout import Layout, try_lock


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    # Beam warns on every import about cloud clients that nothing here uses; what a stage raises is said once, by us
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    from pipelines import again, live
    from pipelines.config import from_environment, parser
    from pipelines.stages import registry

    arguments = parser().parse_args(argv)
    config = from_environment(os.environ, arguments)
    settings.writable_folder(config.layout.lake)
    registry(config.registry)
    with _lake(config.layout):
        if arguments.verb == "replay-quarantine":
            return again.replay_quarantine(config.setup, arguments.reason or [], arguments.since, arguments.dry_run)
        if arguments.verb == "rebuild":
            return again.rebuild(config.setup, arguments.since, arguments.dry_run)
        stop = live.StopFlag()
        signal.signal(signal.SIGTERM, stop.set)
        signal.signal(signal.SIGINT, stop.set)
        return live.run(config, stop)


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
