"""Settings of the simulated devices, from the environment and the command's options."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from contracts.credentials import Credentials
from contracts.layout import Layout
from contracts.settings import SettingError, data_root, port, positive, read
from sensors_sim.fleet import MAX_POSTS


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a verb needs. `posts` None: 400 for `fleet`, all of the registry for `publish`."""

    verb: str
    root: Path
    registry: Path
    host: str
    port: int
    credentials: Credentials
    posts: int | None
    seed: int
    detectors: bool
    connections: str
    rate: float | None
    history_minutes: float
    flush_rate: float
    buffer_per_post: int
    resend_after_s: float
    give_up_sends: int
    confirm: bool
    receipted: Path | None
    window: int
    faults: str
    truth: Path | None
    seconds: float | None
    files: tuple[Path, ...]
    keep_times: bool
    repeat: int

    @property
    def layout(self) -> Layout:
        return Layout(self.root)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{self.prog}: {message}")


def _posts(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_POSTS:
        raise argparse.ArgumentTypeError(f"posts lie in 1..{MAX_POSTS}")
    return number


def _option(parse: Callable[[str], float]) -> Callable[[str], float]:
    def parsed(text: str) -> float:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return parsed


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a whole number above zero is needed")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sensors_sim", description="Simulated lampposts, and replay of recorded feeds.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="fleet|publish|replay", parser_class=_Parser)

    fleet = verbs.add_parser("fleet", help="write the lamppost registry")
    fleet.add_argument("--posts", type=_posts, default=400, help="how many lampposts (default 400, up to 40000)")
    fleet.add_argument("--detectors", action="store_true", help="add the Transport Department's detectors, for replay")
    fleet.add_argument("--out", type=Path, help="the file (default: LAMPLIGHT_REGISTRY)")
    fleet.add_argument("--seed", type=int, default=1, help="of places and equipment (default 1)")

    publish = verbs.add_parser("publish", help="the devices' messages over MQTT")
    publish.add_argument("--posts", type=_posts, help="how many of the registry's lampposts (default: all)")
    publish.add_argument("--seed", type=int, default=1, help="of signals and faults (default 1)")
    publish.add_argument("--connections", choices=("gateway", "post"), default="gateway", help="one per group or post")
    publish.add_argument("--rate", type=_option(positive), help="messages a second (default: the devices' cadence)")
    publish.add_argument("--history", type=_option(float), default=0.0, metavar="MINUTES", help="stored readings")
    publish.add_argument(
        "--flush-rate", type=_option(positive), default=4000.0, help="stored messages a second, at most"
    )
    publish.add_argument(
        "--buffer",
        type=_whole,
        default=1200,
        help="messages that a post holds until their receipt, at most (1200: about 3 h; all posts together: 600000)",
    )
    publish.add_argument(
        "--resend-after",
        type=_option(positive),
        default=10.0,
        metavar="SECONDS",
        help="receipts may stay behind so long (default 10)",
    )
    publish.add_argument(
        "--give-up",
        type=_whole,
        default=5,
        metavar="SENDS",
        help="that receipts of later messages pass over (default 5)",
    )
    publish.add_argument("--receipted", type=Path, metavar="FILE", help="NDJSON of what receipts covered, appended")
    publish.add_argument("--confirm", action="store_true", help="after --seconds, wait until receipts cover everything")
    publish.add_argument("--window", type=_whole, default=20, help="messages in flight per connection (default 20)")
    publish.add_argument("--faults", default="none", help="none, default, or drop=0.001,stuck=0.01,...")
    publish.add_argument("--truth", type=Path, help="NDJSON of faults, appended (default: devices/truth.ndjson)")
    publish.add_argument("--seconds", type=_option(positive), help="stop producing then, and leave when all is sent")

    replay = verbs.add_parser("replay", help="recorded Transport Department XML as device messages")
    replay.add_argument("files", nargs="+", type=Path, metavar="FILE")
    replay.add_argument("--keep-times", action="store_true", help="do not move the times to the present")
    replay.add_argument("--repeat", type=_whole, default=1, help="send everything so often, as after a lost receipt")
    replay.add_argument("--window", type=_whole, default=20, help="messages in flight (default 20)")
    return parser


def configure(environ: Mapping[str, str], argv: list[str]) -> Config:
    """The settings of one command. Raises SettingError that names the variable or option to change."""
    options = _parser().parse_args(argv)
    root = data_root(environ)
    registry = read(environ, "LAMPLIGHT_REGISTRY", Layout(root).registry, Path)
    history = getattr(options, "history", 0.0)
    if not 0 <= history <= 24 * 60:
        raise SettingError("--history lies in 0..1440 minutes")
    if history and getattr(options, "rate", None):
        raise SettingError("--history goes with the devices' own cadence: leave out --rate or --history")
    if getattr(options, "confirm", False) and options.seconds is None:
        raise SettingError("--confirm waits for what was sent until --seconds: add --seconds or leave out --confirm")
    return Config(
        verb=options.verb,
        root=root,
        registry=getattr(options, "out", None) or registry,
        host=read(environ, "LAMPLIGHT_MQTT_HOST", "127.0.0.1", str),
        port=read(environ, "LAMPLIGHT_MQTT_PORT", 1883, port),
        credentials=Credentials.read(environ),
        posts=getattr(options, "posts", None),
        seed=getattr(options, "seed", 1),
        detectors=getattr(options, "detectors", False),
        connections=getattr(options, "connections", "gateway"),
        rate=getattr(options, "rate", None),
        history_minutes=history,
        flush_rate=getattr(options, "flush_rate", 4000.0),
        buffer_per_post=getattr(options, "buffer", 1200),
        resend_after_s=getattr(options, "resend_after", 10.0),
        give_up_sends=getattr(options, "give_up", 5),
        confirm=getattr(options, "confirm", False),
        receipted=getattr(options, "receipted", None),
        window=getattr(options, "window", 20),
        faults=getattr(options, "faults", "none"),
        truth=getattr(options, "truth", None),
        seconds=getattr(options, "seconds", None),
        files=tuple(getattr(options, "files", ())),
        keep_times=getattr(options, "keep_times", False),
        repeat=getattr(options, "repeat", 1),
    )
