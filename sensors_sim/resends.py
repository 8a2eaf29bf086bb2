"""When a message that the broker has taken is sent again, because the receipts stay behind.

A receipt is contiguous, so it cannot tell which messages behind a gap have landed. All that are overdue are sent again,
as after a broker that lost its queue. When the lowest one was sent again and the platform passes over it (a message
of the post that was sent later has its receipt), the gap is that one's alone: then only it goes on, and after several
sendings in vain it is given up. A fleet that never heard a receipt has no reason to be impatient.
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

from sensors_sim.devices import Devices, Message

LONGEST_S = 300.0
_PASSED = 2  # first waits after a sending, a receipt passes over it even when it covers nothing that was sent later


class Resends:
    """`after_s` is the first wait, doubled at each sending; `limit` the sendings in vain until a message is given up.
    `is_patient` stays true until a receipt is heard or a caller needs them."""

    def __init__(self, after_s: float, limit: int, send: Callable[[Message], None], give_up: Callable[[Message], None]):
        self.is_patient = True
        self._after_s = after_s
        self._limit = limit
        self._send = send
        self._give_up = give_up
        self._first: deque[Message] = deque()  # sent once, in order
        self._later: list[tuple[float, int, Message]] = []  # by the moment to look again
        self._numbers = count()

    def acknowledged(self, message: Message) -> None:
        """The broker has taken a message; a receipt is waited for."""
        if message.sends == 1:
            self._first.append(message)
        else:
            self._look(message, message.sent_s + self._wait_s(message))

    def recovered(self, message: Message, at_s: float) -> None:
        """A message of an earlier run: sent again at this moment, unless a retained receipt covers it before."""
        self._look(message, at_s)

    def step(self, devices: Devices, now_s: float) -> None:
        """Send again, or give up, what is overdue."""
        wait_s = LONGEST_S if self.is_patient else self._after_s
        while self._first and self._first[0].sent_s + wait_s <= now_s:
            self._judge(self._first.popleft(), devices, now_s)
        while self._later and self._later[0][0] <= now_s:
            self._judge(heapq.heappop(self._later)[2], devices, now_s)

    def _judge(self, message: Message, devices: Devices, now_s: float) -> None:
        if message.is_gone or message.is_waiting:
            return
        if not message.sends:
            self._again(message)
            return
        shelf = devices.shelf_of(message)
        due_s = max(message.sent_s, shelf.moved_s) + self._wait_s(message)
        if due_s > now_s:
            self._look(message, due_s)
            return
        head = shelf.head()
        if message is not head:
            # until the lowest one is overdue no receipt could cover this one; when it is passed over, the gap is its
            if head is None or head.is_waiting or not head.sends or self._blocks(head, devices, now_s):
                self._look(message, now_s + self._after_s)
            else:
                self._again(message)
            return
        if self._is_passed(message, devices):
            message.vain += 1
            if message.vain >= self._limit:
                self._give_up(message)
                return
        self._again(message)

    def _blocks(self, head: Message, devices: Devices, now_s: float) -> bool:
        return head.sent_s + self._after_s > now_s or (head.sends > 1 and self._is_passed(head, devices))

    def _again(self, message: Message) -> None:
        message.is_waiting = True
        self._send(message)

    def _is_passed(self, message: Message, devices: Devices) -> bool:
        device = devices.all[message.post]
        return device.covered_sent_s > message.sent_s or device.heard_s > message.sent_s + _PASSED * self._after_s

    def _look(self, message: Message, at_s: float) -> None:
        heapq.heappush(self._later, (at_s, next(self._numbers), message))

    def _wait_s(self, message: Message) -> float:
        """The wait after the latest sending: doubled at each, but not for those that the platform has passed over."""
        if self.is_patient:
            return LONGEST_S
        doubled = 2.0 ** min(message.sends - message.vain - 1, 30)
        return min(LONGEST_S, self._after_s * max(_PASSED + 1 if message.vain else 1, doubled))
