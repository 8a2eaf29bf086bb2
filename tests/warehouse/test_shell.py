"""`shell` on a real terminal: several lines, the newest catalogue, Ctrl-C ends a query and not the shell."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.schemas import TABLES
from tests.warehouse.lake_samples import config_of, some_rows, store, write
from tests.warehouse.test_command import ROOT, call
from warehouse.catalogue import publish
from warehouse.shell import PROMPT, is_whole

# Ctrl-C is a signal only to whose terminal it is
LOGIN = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """The shell in a pseudo terminal."""

    def __init__(self, root: Path, home: Path, *options: str):
        self.master, slave = pty.openpty()
        command = [sys.executable, "-c", LOGIN, "-m", "warehouse", "--data", str(root), "shell", *options]
        environ = {**os.environ, "HOME": str(home), "TERM": "dumb", "COLUMNS": "200"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def until(self, text: str) -> str:
        """What is shown up to and with a text."""
        seen, end = "", time.monotonic() + 60
        while text not in seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} was never shown: {seen!r}"
            try:
                seen += _CONTROL.sub("", os.read(self.master, 65_536).decode())
            except OSError:
                raise AssertionError(f"{text!r} was never shown, and the shell has ended: {seen!r}") from None
        return seen

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def ask(self, text: str) -> str:
        """What is shown until the next prompt."""
        self.type(text + "\n")
        return self.until(f"\n{PROMPT}")


def footfall(root: Path, seed: int) -> None:
    """Five rows more, published."""
    store(root, {"footfall": write(root, TABLES["footfall"], some_rows(TABLES["footfall"], 5, seed))})
    publish(config_of(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    footfall(tmp_path / "data", 1)
    return tmp_path / "data"


@pytest.fixture
def terminal(root: Path, tmp_path: Path) -> Iterator[Terminal]:
    shown = Terminal(root, tmp_path)
    try:
        shown.until(PROMPT)
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(shown.master)


def test_a_session(root: Path, tmp_path: Path, terminal: Terminal) -> None:
    count = "SELECT count(*) + 100\nAS n FROM lake.footfall;"
    assert " 105 " in terminal.ask(count).replace("│", " ")
    footfall(root, 2)
    assert " 110 " in terminal.ask(count).replace("│", " "), "the newest catalogue is asked"
    assert "windows.hourly" in terminal.ask(".views")
    assert "Grain" in terminal.ask(".describe hourly")
    assert "did you mean windows.hourly" in terminal.ask(".describe hourli")
    assert ".help lists them" in terminal.ask(".hepl")
    assert "syntax error" in terminal.ask("SELEC 1;")
    assert "read-only" in terminal.ask("COPY (SELECT 1) TO 'x';")
    assert "disabled by configuration" in terminal.ask("FROM read_text('/etc/passwd');")
    two = terminal.ask("SELECT 21 + 21; SELECT 'a;b' || 'c';")
    assert "42" in two
    assert "a;bc" in two
    terminal.type(".quit\n")
    assert terminal.process.wait(timeout=60) == 0
    assert "lake.footfall" in (tmp_path / ".lamplight_history").read_text()


def test_ctrl_c_ends_a_query_and_what_was_typed_but_not_the_shell(terminal: Terminal) -> None:
    terminal.type("SELECT count(*) FROM range(100000000000000);\n")
    terminal.until(";")
    time.sleep(0.3)
    terminal.type("\x03")
    assert "interrupted" in terminal.until(f"\n{PROMPT}")
    terminal.type("SELECT 'half\n")
    terminal.until("...>")
    # between showing a prompt and waiting for keys Python keeps a Ctrl-C until the next key
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.until(PROMPT)
    assert "42" in terminal.ask("SELECT 21 + 21;")
    terminal.type("\x04")
    assert terminal.process.wait(timeout=60) == 0


def test_a_query_ends_after_its_time_and_the_shell_goes_on(root: Path, tmp_path: Path) -> None:
    terminal = Terminal(root, tmp_path, "--timeout", "0.2")
    try:
        terminal.until(PROMPT)
        assert "LAMPLIGHT_QUERY_TIMEOUT_S" in terminal.ask("SELECT count(*) FROM range(100000000000000);")
        assert "42" in terminal.ask("SELECT 21 + 21;")
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_without_a_terminal_or_a_catalogue_it_is_one_line(root: Path, tmp_path: Path) -> None:
    done = call(root, "shell")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert b"sql -f -" in done.stderr
    terminal = Terminal(tmp_path / "none", tmp_path)
    assert "python -m warehouse publish" in terminal.until("LAMPLIGHT_DATA")
    assert terminal.process.wait(timeout=60) == 2
    os.close(terminal.master)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True),
        ("SELECT 1;  \n", True),
        ("SELECT 1", False),
        ("SELECT 'a;", False),
        ("SELECT 'a;\nb';", True),
        ("SELECT 'it''s;';", True),
        ('SELECT ";', False),
        ("SELECT 1 -- one;", False),
        ("SELECT 1; -- it's one", True),
        ("SELECT /* ;", False),
        ("SELECT 1; /* one */", True),
    ],
)
def test_a_statement_ends_with_a_semicolon_of_its_own(text: str, whole: bool) -> None:
    assert is_whole(text) == whole
