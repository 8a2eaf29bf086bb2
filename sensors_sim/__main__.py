"""`python -m sensors_sim fleet|publish|replay`."""

import os

from contracts.registry import save_registry
from contracts.settings import run, writable_folder
from sensors_sim.config import Config, configure


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    config = configure(os.environ, argv)
    if config.verb == "fleet":
        return _fleet(config)
    if config.verb == "publish":
        from sensors_sim.publish import Fleet

        return Fleet(config).run()
    from sensors_sim.replay import replay

    return replay(config)


def _fleet(config: Config) -> int:
    from sensors_sim.fleet import build

    writable_folder(config.registry.parent)
    file = build(config.posts or 400, config.seed, config.detectors)
    save_registry(config.registry, file)
    lampposts = sum(post.kind == "lamppost" for post in file.lampposts)
    print(f"{config.registry}: {lampposts} lampposts, {len(file.lampposts) - lampposts} detectors")
    return 0


if __name__ == "__main__":
    run(main)
