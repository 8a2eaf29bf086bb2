"""The loop of `python -m ingest run`: one thread that reads, commits, thanks, and waits for nothing but the network."""

import select
import time

from contracts import credentials
from contracts.events import events_path
from contracts.logs import say
from contracts.settings import SettingError
from contracts.times import US
from ingest.config import Config
from ingest.disk import RETRY_S, Disk
from ingest.journal import Journal
from ingest.landing import Landing, NotDurableError
from ingest.link import Link
from ingest.metrics import Metrics
from ingest.progress import Progress
from ingest.stop import Stop

BATCH_ROWS = 2_000
BATCH_BYTES = 16 << 20
HANDSHAKE_S = 10.0
TEND_S = 1.0
BACKOFF_S = (0.25, 8.0)
UNREACHABLE_S = 1.0  # asked for more often: until we are back, a Mosquitto that was restarted keeps nothing for us
LASTING_S = 30.0  # a connection that lasts so long begins the backoff anew
AHEAD_US = 60 * US


class Loop:
    """Group commit: what arrives while one commit runs is the next batch; a batch is never waited for (law 1).

    For whoever watches from outside (time.monotonic): `turned_at` is the last turn, `unready_since` the moment since
    which there is no subscribed connection, None while there is one.
    """

    def __init__(self, config: Config, link: Link, landing: Landing, stop: Stop):
        self.config = config
        self.link = link
        self.landing = landing
        self.stop = stop
        self.progress = Progress(config.progress)
        self.journal = Journal(events_path(landing.raw, landing.instance))
        self.disk = Disk(landing, self.journal, config.disk_grace_s)
        self.metrics = Metrics()
        self.turned_at = time.monotonic()
        self.unready_since: float | None = self.turned_at
        self._tend_at = 0.0
        self._ready_at = 0.0
        self._backoff_s = BACKOFF_S[0]
        self._is_unreachable = False
        self._limits = ""
        link.on_session = self._on_session
        link.last_received_us = max(link.last_received_us, landing.last_received_us)

    def run(self) -> int:
        """Land until stopped; 0, or 1 when the disk refuses commits at the end.

        Raises SettingError when the broker cannot be reached at the start or refuses us; any other exception is an
        error of ours and ends the loop too, unacknowledged messages staying with the broker.
        """
        try:
            self.start()
            while not self.stop.is_set and not self.disk.is_given_up:
                self.step()
            return self.finish()
        finally:
            self.link.close()

    def start(self) -> None:
        """The first connection."""
        self._say_what_was_found()
        if not self._open() and self.disk.failing_since is None:
            raise SettingError(
                f"the broker at {self.config.address} cannot be used ({self.link.failure}): start it, "
                f"or change LAMPLIGHT_MQTT_HOST, LAMPLIGHT_MQTT_PORT, {credentials.HINT}"
            )
        offset = self.landing.start_offset
        folder = self.landing.raw / self.landing.instance
        say("ingest", f"landing from {self.config.address} in {folder} at offset {offset}", offset=offset)
        self.progress.begin()

    def step(self) -> None:
        """What is to be done next, as things stand."""
        self.turned_at = time.monotonic()
        if self.disk.failing_since is not None:
            self._hold()
        elif self.link.connection is None:
            self._reopen()
        else:
            self.turn()

    def finish(self) -> int:
        """Settle what has been taken; the exit code."""
        self.commit()
        self._seal()
        self.progress.write(self.landing)
        if self.disk.is_given_up:
            grace = f"LAMPLIGHT_DISK_GRACE_S={self.config.disk_grace_s:g}"
            say("ingest", f"given up: the disk has refused commits for {grace} seconds", "error")
        return 0 if self.disk.failing_since is None else 1

    def turn(self) -> None:
        """Wait for the network, the next chore or the wish to stop; then read, commit and thank."""
        link = self.link
        connection = link.connection
        self.turned_at = time.monotonic()
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
        try:
            self.landing.append(arrivals)
        except NotDurableError as error:
            self._refused(error)
            return
        spent_s = time.monotonic() - began
        self.link.settle(arrivals)
        self.progress.committed(spent_s)
        self.metrics.committed(arrivals, spent_s)

    def _pause_s(self) -> float:
        due = min(self._tend_at, self.progress.due_at, self.landing.seal_at or float("inf"))
        return max(0.0, due - time.monotonic())

    def _chores(self) -> None:
        now = time.monotonic()
        if self.landing.seal_at is not None and now >= self.landing.seal_at:
            self._seal()
        if now >= self._tend_at:
            self._tend_at = now + TEND_S
            self.link.tend()
            self.journal.write()
        if now >= self.progress.due_at:
            self.progress.write(self.landing)

    def _seal(self) -> None:
        if self.disk.failing_since is None:
            try:
                self.landing.seal()
            except NotDurableError as error:
                self._refused(error)

    def _refused(self, error: NotDurableError) -> None:
        """The disk did not take it: let go of what is not durable, the broker has it."""
        if self.disk.failing_since is None:
            self.metrics.disk_failures.inc()
        self.disk.failed(error)
        self.unready_since = self.unready_since or time.monotonic()
        self.link.drop("the disk refuses commits")
        self.link.clear()

    def _hold(self) -> None:
        if self.disk.try_again():
            self.link.failure = ""
            self._open()
            return
        if time.monotonic() >= self.progress.due_at:
            self.progress.write(self.landing)
        self.stop.wait(RETRY_S)

    def _open(self) -> bool:
        """Connect and wait until the subscription stands; messages may come before it does."""
        self._is_unreachable = not self.link.connect()
        if self._is_unreachable:
            return False
        until = time.monotonic() + HANDSHAKE_S
        while not self.link.is_ready and not self.stop.is_set:
            if time.monotonic() >= until:
                self.link.drop("it does not answer as an MQTT 5 broker")
            if self.link.connection is None:
                return False
            self.turn()
        self._ready_at = time.monotonic()
        self.unready_since = None if self.link.is_ready else self.unready_since
        return True

    def _reopen(self) -> None:
        """After a loss: again and again, more and more patiently, until it is back or we are stopped.

        A connection that did not last counts as an attempt, so that two processes with one session (Mosquitto 2.0.11
        closes the older without a reason) do not throw each other out hundreds of times a second.
        """
        lost_at = time.monotonic()
        self.unready_since = self.unready_since or lost_at
        has_lasted = lost_at - self._ready_at >= LASTING_S
        if has_lasted:
            self._backoff_s = BACKOFF_S[0]
        hint = "" if has_lasted else f"; does another process use the session {self.config.client_id}?"
        say("ingest", f"broker {self.config.address} lost ({self.link.failure}{hint}); connecting again", "warning")
        while self._settled() and not self.stop.wait(self._patience_s()):
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])
            self.turned_at = time.monotonic()
            if self._open():
                self.metrics.reconnects.inc()
                if not self.stop.is_set:
                    away_s = time.monotonic() - lost_at
                    say("ingest", f"broker {self.config.address} is back after {away_s:.1f} s", away_s=round(away_s, 1))
                return
            self._chores()

    def _patience_s(self) -> float:
        return min(self._backoff_s, UNREACHABLE_S) if self._is_unreachable else self._backoff_s

    def _settled(self) -> bool:
        """What came over the last connection is on disk, and sealed; False when the disk refuses."""
        self.commit()
        self._seal()
        return self.disk.failing_since is None

    def _on_session(self, is_kept: bool, limits: str) -> None:
        # written before the subscription is asked for: a session that we forget of would be lost without a word
        client_id = self.config.client_id
        if not is_kept and self.journal.has_session:
            self.metrics.sessions_lost.inc()
            detail = f"the broker {self.config.address} has no session {client_id}: what it held for us is gone"
            self.journal.note("session_lost", detail)
            say("ingest", f"session lost: {detail}; devices send again what no receipt covers", "error")
        elif not self.journal.has_session:
            self.journal.note("joined", f"session {client_id} at {self.config.address}")
        if limits and limits != self._limits:
            say("ingest", f"the broker {self.config.address} limits us: {limits}", "warning")
            if limits != self.journal.limits:
                self.journal.note("limited", limits)
        self._limits = limits

    def _say_what_was_found(self) -> None:
        for first, last in self.landing.holes:
            say("ingest", f"offsets {first} to {last} are damaged and left out", "error", first=first, last=last)
        ahead_us = self.landing.last_received_us - time.time_ns() // 1000
        if ahead_us > AHEAD_US:
            say("ingest", f"received_time goes on {ahead_us / US:.0f} s ahead of this clock: is it right?", "warning")
