"""`publish`: the catalogue of today's lake, of an earlier state of it, or of a lake that lies elsewhere."""

import argparse
from functools import partial
from pathlib import Path

from contracts.settings import SettingError, writable_folder
from warehouse.catalogue import publish
from warehouse.config import Config, Verbs
from warehouse.follow import run_until_signal
from warehouse.ledger import parse_since
from warehouse.snapshots import forget_unpinned, pin_at, pinned_catalogue


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("publish", help="build catalog.duckdb from the lake's stored positions")
    parser.add_argument("--follow", action="store_true", help="and again whenever the lake changes")
    parser.add_argument(
        "--as-of",
        type=partial(parse_since, option="--as-of"),
        metavar="TIME",
        help="of the newest pin at or before TIME (1d, 2026-11-21T08:00Z), as catalog.{pin}.duckdb",
    )
    parser.add_argument(
        "--root", metavar="PREFIX", help="for a lake that lies below PREFIX: mounted or copied elsewhere; needs --out"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write this file, not the data root's own catalogue")
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Publish as the options say; raises SettingError."""
    if options.follow and (options.as_of or options.root is not None or options.out):
        raise SettingError("--follow keeps today's catalogue up to date: leave out --as-of, --root and --out")
    if options.root is not None and options.out is None:
        raise SettingError("--root needs --out FILE: here its files would not be found")
    writable_folder(config.root)
    if options.follow:
        run_until_signal(config)
        return 0
    layout, source, out = config.layout, None, options.out
    if options.as_of:
        pin = pin_at(layout, options.as_of)
        source, out = pin.source(layout), out or pinned_catalogue(layout, pin)
        print(f"pin {pin.name}: all that was stored by {pin.moment:%Y-%m-%d %H:%M:%S} UTC")
    prefix = None if options.root is None else options.root.rstrip("/")
    done = publish(config, source=source, out=out, prefix=prefix)
    forget_unpinned(layout)
    print(f"{done.path}: {len(done.positions.versions)} tables, {done.file_count} files")
    return 0
