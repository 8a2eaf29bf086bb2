"""`python -m ingest retire`: an instance that is no longer wanted gives back its share and loses nothing.

A broker keeps dealing messages to a session of a shared subscription whose client is away (Mosquitto 2.0.11: half of
them, with two), so an instance that only stops would sit on them until its session expires.
"""

import time

from contracts.logs import say
from ingest.loop import Loop

QUIET_S = 1.0


def run(loop: Loop) -> int:
    """Land what the session still holds, then end it; 1 when something came between. The loop's link is leaving."""
    landing, link = loop.landing, loop.link
    try:
        loop.start()
        is_drained = False
        while not (is_drained or loop.stop.is_set or loop.disk.is_given_up):
            is_drained = _is_drained(loop)
        if loop.finish() or not is_drained:
            say("ingest", f"instance {landing.instance} is not retired yet: give the command again", "error")
            return 1
        detail = f"session {loop.config.client_id} drained and ended, {landing.durable} messages landed from it"
        loop.journal.note("retired", detail)
        link.close(is_end=True)
    finally:
        link.close()
    say("ingest", f"instance {landing.instance} is retired: {detail}", landed=landing.durable)
    return 0


def _is_drained(loop: Loop) -> bool:
    """Go on until it was quiet for a while, then ask the broker for a word; whether nothing came before that.

    The broker answers in order: it has then heard our last acknowledgement, and has sent whatever that made room for.
    """
    landing, link = loop.landing, loop.link
    state = landing.next_offset, link.generation
    until = time.monotonic() + QUIET_S
    answers = None
    while answers is None or link.answers == answers:
        loop.step()
        if loop.stop.is_set or not link.is_ready or state != (landing.next_offset, link.generation):
            return False
        if answers is None and time.monotonic() >= until:
            answers = link.answers
            link.leave()
    return True
