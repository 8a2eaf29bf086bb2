"""`python -m warehouse`, what it prints and its exit code, within this process: to start another takes two seconds."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from contracts.settings import run
from warehouse.__main__ import main


def call(root: Path, *arguments: str) -> CompletedProcess[str]:
    """Run a verb on a data root."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    command = ["warehouse", "--data", str(root), *arguments]
    code: object = None
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", command):
        try:
            run(main)
        except SystemExit as ended:
            code = ended.code
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())
    assert isinstance(code, int)
    return CompletedProcess(command, code, *said)
