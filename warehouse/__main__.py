"""python -m warehouse publish | sql | shell | describe | ledger | check | verify | disk: `--help` says more of each"""

import argparse
import os
from pathlib import Path

from contracts.settings import run
from warehouse import answer, checks, describe, disk, ledger, publishing, shell, verify
from warehouse.config import Config

# each adds its parser, which says what it runs
VERBS = (publishing, answer, shell, describe, ledger, checks, verify, disk)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m warehouse", description="The DuckDB catalogue over the lake.")
    parser.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA)")
    parser.add_argument("--catalogue", type=Path, metavar="FILE", help="the catalogue to ask, if not the data root's")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: list[str]) -> int:
    """Run one verb; raises SettingError."""
    options = _parser().parse_args(argv)
    config = Config.build(os.environ, options.data, options.catalogue)
    code: int = options.run(config, options)
    return code


if __name__ == "__main__":
    run(main)
