"""python -m warehouse publish [--follow] | sql QUERY | views [NAME] | ledger [--since TIME] | check | verify"""

import argparse
import os
import secrets
from pathlib import Path

from contracts.settings import run, writable_folder
from warehouse.catalogue import publish
from warehouse.checks import FORMATS as CHECK_FORMATS
from warehouse.checks import Asked, checks, parse_seconds, print_checks
from warehouse.config import Config
from warehouse.follow import run_until_signal
from warehouse.ledger import FORMATS as LEDGER_FORMATS
from warehouse.ledger import KEYS, Question, parse_since, print_ledger
from warehouse.query import FORMATS, answer, describe_columns, describe_views
from warehouse.verify import SAMPLE, parse_sample, print_verification


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m warehouse", description="The DuckDB catalogue over the lake.")
    parser.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    published = verbs.add_parser("publish", help="build catalog.duckdb from the lake's stored positions")
    published.add_argument("--follow", action="store_true", help="and again whenever the lake changes")
    asked = verbs.add_parser("sql", help="answer a SELECT")
    asked.add_argument("query")
    asked.add_argument("--format", choices=FORMATS, help="default: as the name of --out ends, else a table")
    asked.add_argument("--out", type=Path, help="file to write instead of standard output")
    counted = verbs.add_parser(
        "ledger", help="was anything lost: expected = accepted + quarantined + dropped + missing"
    )
    counted.add_argument("--since", type=parse_since, metavar="TIME", help="30m, 1h, 2d or a time; default: everything")
    counted.add_argument("--post", nargs="+", default=[], metavar="POST", help="these posts only")
    counted.add_argument("--by", nargs="+", choices=(*KEYS, "total"), default=["post", "stream"], help="what a row is")
    counted.add_argument("--format", choices=LEDGER_FORMATS, default="table", help="csv, json: every row, clean or not")
    checked = verbs.add_parser("check", help="what holds in every lake: say which rows break it")
    checked.add_argument("names", nargs="*", metavar="CHECK", help=f"these only: {', '.join(checks())}")
    checked.add_argument("--since", type=parse_since, metavar="TIME", help="30m, 2d or a time; default: the last day")
    checked.add_argument(
        "--fresh", type=parse_seconds, metavar="S", help="and the newest data is at most S seconds old"
    )
    checked.add_argument("--format", choices=CHECK_FORMATS, default="text")
    verified = verbs.add_parser("verify", help="compute windows of drawn hours again from the readings, and compare")
    verified.add_argument(
        "--sample", type=parse_sample, default=SAMPLE, metavar="N", help="so many hours of one post each"
    )
    verified.add_argument("--seed", type=int, metavar="S", help="draw the same hours again; default: others each time")
    listed = verbs.add_parser("views", help="list views and tables with their meaning")
    listed.add_argument("name", nargs="?", help="a view, to list its columns with theirs")
    return parser


def main(argv: list[str]) -> int:
    """Run one verb; raises SettingError."""
    options = _parser().parse_args(argv)
    config = Config.build(os.environ, options.data)
    if options.verb == "publish":
        writable_folder(config.root)
        if options.follow:
            run_until_signal(config)
        else:
            done = publish(config)
            print(f"{config.layout.catalogue}: {len(done.positions.versions)} tables, {done.file_count} files")
    elif options.verb == "sql":
        ending = options.out.suffix.removeprefix(".").lower() if options.out else ""
        form = options.format or (ending if ending in FORMATS else "table")
        answer(config.layout.catalogue, options.query, form, options.out)
    elif options.verb == "ledger":
        by = tuple(name for name in KEYS if name in options.by)
        question = Question(since=options.since, posts=tuple(options.post), by=by)
        return print_ledger(config.layout.catalogue, question, options.format)
    elif options.verb == "check":
        asked = Asked(names=tuple(options.names), since=options.since, fresh_s=options.fresh)
        return print_checks(config.layout.catalogue, asked, options.format)
    elif options.verb == "verify":
        seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
        return print_verification(config.layout.catalogue, options.sample, seed)
    elif options.name:
        for column, kind, comment in describe_columns(config.layout.catalogue, options.name):
            print(f"{column:24} {kind:26} {comment}")
    else:
        for name, comment in describe_views(config.layout.catalogue):
            print(f"{name:22} {comment}")
    return 0


if __name__ == "__main__":
    run(main)
