"""The loop of `python -m ingest run`: one thread that reads, commits, thanks, and waits for nothing but the network."""

import select
import sys
import time

from contracts import credentials
from contracts.settings import SettingError
from ingest.config import Config
from ingest.landing import Landing
from ingest.link import Link
from ingest.progress import Progress
from ingest.stop import Stop

BATCH_ROWS = 2_000
BATCH_BYTES = 16 << 20
HANDSHAKE_S = 10.0
TEND_S = 1.0
BACKOFF_S = (0.25, 8.0)
LASTING_S = 30.0  # a connection that lasts so long begins the backoff anew


class Loop:
    """Group commit: what arrives while one commit runs is the next batch; a batch is never waited for (law 1)."""

    def __init__(self, config: Config, link: Link, landing: Landing, stop: Stop):
        self.config = config
        self.link = link
        self.landing = landing
        self.stop = stop
        self.progress = Progress(config.layout.progress("ingest"))
        self._tend_at = 0.0
        self._ready_at = 0.0
        self._backoff_s = BACKOFF_S[0]

    def run(self) -> None:
        """Land until stopped. Raises SettingError when the broker cannot be reached at the start, refuses us, or the
        disk fails; any other exception is an error of ours and ends the loop too, unacknowledged messages staying
        with the broker."""
        try:
            if not self._open():
                raise SettingError(
                    f"the broker at {self.config.address} cannot be used ({self.link.failure}): start it, "
                    f"or change LAMPLIGHT_MQTT_HOST, LAMPLIGHT_MQTT_PORT, {credentials.HINT}"
                )
            folder = self.landing.raw / self.landing.instance
            _say(f"landing from {self.config.address} in {folder} at offset {self.landing.start_offset}")
            self.progress.begin()
            while not self.stop.is_set:
                if self.link.connection is None:
                    self._reopen()
                else:
                    self.turn()
            self.commit()
            self.progress.write(self.landing)
        finally:
            self.link.close()

    def turn(self) -> None:
        """Wait for the network, the next chore or the wish to stop; then read, commit and thank."""
        link = self.link
        connection = link.connection
        writers = [connection] if link.wants_write else []
        # bytes that are read but not parsed are work at once; select does not know them
        pause_s = 0.0 if link.is_buffered else self._pause_s()
        readable, writable, _ = select.select([self.stop, connection], writers, [], pause_s)
        if link.is_buffered or connection in readable:
            link.read(BATCH_ROWS, BATCH_BYTES)
            self.commit()
        if writable:
            link.write()
        self._chores()

    def commit(self) -> None:
        """Make the inbox durable, then acknowledge it: in this order, or not at all."""
        arrivals = self.link.take()
        if not arrivals:
            return
        began = time.monotonic()
        self.landing.append(arrivals)
        self.progress.committed(time.monotonic() - began)
        self.link.settle(arrivals)

    def _pause_s(self) -> float:
        due = min(self._tend_at, self.progress.due_at, self.landing.seal_at or float("inf"))
        return max(0.0, due - time.monotonic())

    def _chores(self) -> None:
        now = time.monotonic()
        self.landing.seal_if_due()
        if now >= self._tend_at:
            self._tend_at = now + TEND_S
            self.link.tend()
        if now >= self.progress.due_at:
            self.progress.write(self.landing)

    def _open(self) -> bool:
        """Connect and wait until the subscription stands; messages may come before it does."""
        if not self.link.connect():
            return False
        until = time.monotonic() + HANDSHAKE_S
        while not self.link.is_ready and not self.stop.is_set:
            if time.monotonic() >= until:
                self.link.drop("it does not answer as an MQTT 5 broker")
            if self.link.connection is None:
                return False
            self.turn()
        self._ready_at = time.monotonic()
        return True

    def _reopen(self) -> None:
        """After a loss: again and again, more and more patiently, until it is back or we are stopped.

        A connection that did not last counts as an attempt, so that two processes with one session (Mosquitto 2.0.11
        closes the older without a reason) do not throw each other out hundreds of times a second.
        """
        self.commit()
        self.landing.seal()
        lost_at = time.monotonic()
        has_lasted = lost_at - self._ready_at >= LASTING_S
        if has_lasted:
            self._backoff_s = BACKOFF_S[0]
        hint = "" if has_lasted else f"; does another process use the session {self.config.client_id}?"
        _say(f"broker {self.config.address} lost ({self.link.failure}{hint}); connecting again")
        while not self.stop.wait(self._backoff_s):
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])
            if self._open():
                if not self.stop.is_set:
                    _say(f"broker {self.config.address} is back after {time.monotonic() - lost_at:.1f} s")
                return
            self.commit()
            self.landing.seal()
            self._chores()


def _say(line: str) -> None:
    print(f"lamplight: ingest: {line}", file=sys.stderr, flush=True)
