"""Telegraf as a peer of ingest: built from its module where Go is, MQTT to a file, without fsync."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

VERSION = "v1.37.2"
_MODULE = f"github.com/influxdata/telegraf/cmd/telegraf@{VERSION}"
_TAGS = "custom,inputs.mqtt_consumer,outputs.file,parsers.json,serializers.influx"
_BUILD_PATIENCE_S = 900.0
_LOOK_S = 0.3

# What is said here differs from Telegraf's defaults. QoS 1, because ours is; the rest of `default` is needed to run.
_DEFAULT = """\
[agent]
  quiet = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{port}"]
  topics = ["{topics}"]
  qos = 1
  data_format = "json"
[[outputs.file]]
  files = ["{out}"]
"""
# Acknowledges when written (`persistent_session`), and never waits for a flush: the fastest of those tried.
_TUNED = """\
[agent]
  quiet = true
  omit_hostname = true
  metric_batch_size = 10000
  metric_buffer_limit = 1000000
  flush_interval = "200ms"
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{port}"]
  topics = ["{topics}"]
  qos = 1
  persistent_session = true
  client_id = "telegraf"
  max_undelivered_messages = 100000
  data_format = "json"
[[outputs.file]]
  files = ["{out}"]
  use_batch_format = true
"""
SETTINGS = {"telegraf_default": _DEFAULT, "telegraf_tuned": _TUNED}
_STAMP = re.compile(rb" ([0-9]{19})\n")


def program() -> Path:
    """The binary, built on first use and kept beside the environment. Raises RuntimeError where that is impossible."""
    folder = Path(sys.prefix) / "peers" / f"telegraf-{VERSION}"
    binary = folder / "telegraf"
    if binary.exists():
        return binary
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/local/go/bin")
    if go is None:
        raise RuntimeError("go is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"building telegraf {VERSION}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [go, "install", "-tags", _TAGS, _MODULE],
        env={**os.environ, "GOBIN": str(folder)},
        capture_output=True,
        text=True,
        timeout=_BUILD_PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"telegraf does not build: {done.stderr[-500:]}")
    return binary


class Telegraf:
    """One running Telegraf that writes what it hears to `out`, a line a message."""

    def __init__(self, settings: str, port: int, topics: str, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.out = folder / "telegraf.lines"
        configuration = folder / "telegraf.conf"
        configuration.write_text(SETTINGS[settings].format(port=port, topics=topics, out=self.out))
        command = [str(program()), "--config", str(configuration), "--quiet"]
        self._process = subprocess.Popen(command, stderr=(folder / "telegraf.log").open("wb"))

    def __enter__(self) -> "Telegraf":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def seconds_for(self, count: int, patience_s: float) -> float | None:
        """Seconds from the receipt of the first message to that of the last, when `count` lines are written; None when
        that is not so in time, or Telegraf has ended.

        By receipts, because a last batch that is not full waits for Telegraf's flush interval.
        """
        until, size = time.monotonic() + patience_s, -1
        while time.monotonic() < until and self._process.poll() is None:
            time.sleep(_LOOK_S)
            state = self.out.stat() if self.out.exists() else None
            # counting costs the machine that is measured: only when nothing comes any more
            if state is not None and state.st_size == size > 0 and self._lines() >= count:
                return self._spent_s()
            size = state.st_size if state is not None else -1
        return None

    def _lines(self) -> int:
        return self.out.read_bytes().count(b"\n")

    def _spent_s(self) -> float:
        stamps = [int(found) for found in _STAMP.findall(self.out.read_bytes())]
        return (max(stamps) - min(stamps)) / 1e9
