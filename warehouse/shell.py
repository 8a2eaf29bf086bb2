"""`shell`: SQL at a prompt, with the limits of `sql`; each statement is asked of the newest catalogue."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from contracts.settings import SettingError
from warehouse.answer import show
from warehouse.config import Config, Limits, Verbs, limit_options, limits_of
from warehouse.describe import about, described, overview
from warehouse.query import Reader

HISTORY = ".lamplight_history"
HISTORY_LINES = 1_000
PROMPT, GOES_ON = "lamplight> ", "      ...> "
HELP = """\
A statement may go over several lines and ends with a semicolon. It is asked of the newest catalogue.
  .views           what there is, by schema
  .describe NAME   what a view means, its key and its columns
  .help            this
  .quit            leave (or Ctrl-D); Ctrl-C ends a query, or forgets what was typed"""
# what may hold a semicolon that ends nothing
_TOKENS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("shell", help="ask in SQL at a prompt")
    limit_options(parser)
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Ask until the person leaves; raises SettingError when there is no catalogue."""
    if not sys.stdin.isatty():
        raise SettingError("shell needs a terminal: use `python -m warehouse sql -f -`")
    shell = Shell(config.catalogue, limits_of(config, options))
    try:
        with _history(Path.home() / HISTORY, shell.names):
            shell.loop()
    finally:
        shell.close()
    return 0


def is_whole(text: str) -> bool:
    """Whether a text ends with a semicolon that stands in no string, name or comment."""
    bare = _TOKENS.sub(" ", text)
    return bare.rstrip().endswith(";") and not any(sign in bare for sign in ("'", '"', "/*"))


class Shell:
    """A prompt over the catalogue at `path`."""

    def __init__(self, path: Path, limits: Limits):
        self.path, self.limits = path, limits
        self.reader = Reader(path, limits)
        self._names: list[str] = []

    def close(self) -> None:
        """Let the catalogue go."""
        self.reader.connection.close()

    def loop(self) -> None:
        """Read and answer until .quit or the end of the input."""
        print("Lamplight: SQL over the city's catalogue; .help says more, .views lists the views.")
        lines: list[str] = []
        while True:
            try:
                line = input(GOES_ON if lines else PROMPT)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                lines = []
                continue
            if not lines and line.strip() in (".quit", ".exit"):
                return
            if not lines and (line.startswith(".") or not line.strip()):
                self._told(self.command, line)
                continue
            lines.append(line)
            if is_whole(text := "\n".join(lines)):
                lines = []
                self._told(self.ask, text)

    def _told(self, act: Callable[[str], None], text: str) -> None:
        """Act on a text; what a person must change, and Ctrl-C, do not end the shell."""
        try:
            act(text)
        except (SettingError, duckdb.Error) as error:
            print(f"lamplight: {error}")
        except KeyboardInterrupt:
            print("lamplight: interrupted")

    def ask(self, text: str) -> None:
        """Answer the statements of a text. Raises SettingError."""
        self.renew()
        for query in self.reader.statements(text):
            with self.reader.asked():
                show(self.reader.connection, query, sys.stdout, {})

    def command(self, line: str) -> None:
        """Do what a line that begins with a dot says. Raises SettingError."""
        verb, _, name = line.strip().partition(" ")
        if verb == ".help":
            print(HELP)
        elif verb in (".views", ".describe"):
            self.renew()
            connection = self.reader.connection
            for said in about(connection, name.strip()) if name.strip() else overview(connection):
                print(said)
        elif verb:
            raise SettingError(f"{verb} is no command: .help lists them")

    def renew(self) -> None:
        """Open the newest catalogue, if it is another one. Raises SettingError, and keeps the one that is open."""
        if self.reader.is_current():
            return
        newer = Reader(self.path, self.limits)
        self.close()
        self.reader = newer
        self._names = []

    def names(self) -> list[str]:
        """Names of views, tables and macros, for the tabulator key."""
        self._names = self._names or [one.bare_name for one in described(self.reader.connection)]
        return self._names


@contextmanager
def _history(path: Path, names: Callable[[], list[str]]) -> Iterator[None]:
    """Line editing with the statements of former sessions; the tabulator key completes names."""
    import readline

    def complete(text: str, number: int) -> str | None:
        found = [name for name in names() if name.startswith(text)]
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(HISTORY_LINES)
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(path)
