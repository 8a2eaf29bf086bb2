"""What a stage says never ends it."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_log_that_takes_nothing_ends_no_stage() -> None:
    script = "from contracts.logs import say\nfor _ in range(3): say('stage', 'words')\nprint('goes on')"
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, check=False, text=True
        )
    assert (done.returncode, done.stdout) == (0, "goes on\n")
