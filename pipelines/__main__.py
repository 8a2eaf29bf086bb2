"""`python -m pipelines run`: clean, aggregate and release what has landed."""

import logging
import os
import signal

from contracts import settings
from contracts.layout import try_lock


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    # Beam warns on every import about cloud clients that nothing here uses
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    from pipelines import live
    from pipelines.config import from_environment, parser
    from pipelines.stages import registry

    arguments = parser().parse_args(argv)
    config = from_environment(os.environ, arguments)
    settings.writable_folder(config.layout.lake)
    registry(config.registry)
    # one loop owns the positions: two would store them over each other
    lock = try_lock(config.layout.lake / "lock")
    if lock is None:
        raise settings.SettingError(f"another `pipelines run` works on {config.layout.lake}: change LAMPLIGHT_DATA")
    stop = live.StopFlag()
    signal.signal(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, stop.set)
    with lock:
        return live.run(config, stop)


if __name__ == "__main__":
    settings.run(main)
