"""Settings of every process: `LAMPLIGHT_` variables, each overridden by an option of its command.

A wrong setting, a busy port, an unreachable broker or an unwritable folder ends a command with one line that names
what to change, and exit code 2.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from contracts.layout import make_folder
from contracts.logs import is_json, say

T = TypeVar("T")


class SettingError(Exception):
    """Something that a person must change before a command can run; the message says what."""


def read(environ: Mapping[str, str], variable: str, default: T, parse: Callable[[str], T]) -> T:
    """The variable's value as `parse` reads it, or the default when it is unset or empty.

    Raises SettingError that names the variable when its text does not parse.
    """
    text = environ.get(variable, "")
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(f"{variable}={text!r} is not usable: {error}") from error


def port(text: str) -> int:
    """A TCP port from text; raises ValueError outside 1..65535."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise ValueError("a port lies in 1..65535")
    return number


def positive(text: str) -> float:
    """A number above zero from text; raises ValueError otherwise."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("a number above zero is needed")
    return number


# delta-rs takes a path for an address: it decodes %20, turns \ around and refuses the rest (measured with 1.6)
NOT_IN_PATHS = "%\\[]^|"


def data_root(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """Where all of Lamplight's files lie: the folder given, LAMPLIGHT_DATA, or `var` below the working folder. Raises
    SettingError where no Delta table can lie."""
    root = given or read(environ, "LAMPLIGHT_DATA", Path("var"), Path)
    if wrong := sorted({one for one in str(root.absolute()) if one in NOT_IN_PATHS or not one.isprintable()}):
        said = " ".join(one if one.isprintable() else repr(one) for one in wrong)
        raise SettingError(
            f"no Delta table can lie in {str(root.absolute())!r}, because of {said}: change LAMPLIGHT_DATA"
        )
    return root


def writable_folder(folder: Path) -> Path:
    """The folder, made if need be; raises SettingError when it cannot be made or written."""
    probe = folder / ".writable"
    try:
        make_folder(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingError(f"folder {folder} cannot be written ({error.strerror}): change LAMPLIGHT_DATA") from error
    return folder


def run(main: Callable[[list[str]], int]) -> None:
    """Run a command's main with argv and leave with its exit code; a SettingError is one line and exit code 2."""
    try:
        code = main(sys.argv[1:])
    except SettingError as error:
        if is_json():
            say(os.path.basename(os.path.dirname(sys.argv[0])), str(error), "error")
        else:
            print(f"lamplight: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # the reader of our output (head, less) has left; the interpreter must not try to flush to it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
