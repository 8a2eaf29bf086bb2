"""What the posts have dropped without a receipt, until a heartbeat that says so has landed."""

from typing import TYPE_CHECKING

from contracts.payloads import SeqRange

if TYPE_CHECKING:
    from sensors_sim.devices import Message

_AT_ONCE = 100  # ranges of one heartbeat
_Spans = list[list[int]]  # [first, last], both included


class Reports:
    """Each range stands in one heartbeat; when that heartbeat is dropped itself, in another."""

    def __init__(self) -> None:
        self._untold: dict[str, dict[tuple[str, str], _Spans]] = {}  # by post, then boot and stream
        self._told: dict[tuple[str, str, int], list[SeqRange]] = {}  # by post, boot and seq of the heartbeat

    def has_untold(self, post_id: str) -> bool:
        return post_id in self._untold

    def dropped(self, message: "Message") -> None:
        """A message is held no more although no receipt covers it; what it told has to be told again."""
        self.add(message.post_id, message.boot_id, message.stream, message.seq, message.seq)
        if message.stream == "status":
            self.untell(message.post_id, message.boot_id, message.seq)

    def untell(self, post_id: str, boot_id: str, seq: int) -> None:
        """The heartbeat of this boot and seq will not land."""
        for span in self._told.pop((post_id, boot_id, seq), ()):
            self.add(post_id, span.boot_id, span.stream, span.first_seq, span.last_seq)

    def add(self, post_id: str, boot_id: str, stream: str, first: int, last: int) -> None:
        """Seqs that are to be told."""
        spans = self._untold.setdefault(post_id, {}).setdefault((boot_id, stream), [])
        if spans and spans[-1][1] + 1 == first:
            spans[-1][1] = last
        else:
            spans.append([first, last])

    def tell(self, post_id: str, boot_id: str, seq: int) -> list[SeqRange]:
        """What the heartbeat of this boot and seq says; to be called once for it."""
        untold = self._untold.get(post_id)
        if untold is None:
            return []
        told: list[SeqRange] = []
        for key in list(untold):
            spans = untold[key]
            taken, untold[key] = spans[: _AT_ONCE - len(told)], spans[_AT_ONCE - len(told) :]
            told += [SeqRange(boot_id=key[0], stream=key[1], first_seq=a, last_seq=b) for a, b in taken]  # type: ignore[arg-type]
            if not untold[key]:
                del untold[key]
        if not untold:
            del self._untold[post_id]
        self._told[post_id, boot_id, seq] = told
        return told

    def was_told(self, post_id: str, boot_id: str, seq: int, told: list[SeqRange]) -> None:
        """A heartbeat of an earlier run was found that says this."""
        for span in told:
            key = span.boot_id, span.stream
            spans = self._untold.get(post_id, {}).get(key)
            if spans is None:
                continue
            left = [
                piece
                for a, b in spans
                for piece in ([a, min(b, span.first_seq - 1)], [max(a, span.last_seq + 1), b])
                if piece[0] <= piece[1]
            ]
            self._untold[post_id][key] = left
            if not left:
                del self._untold[post_id][key]
                if not self._untold[post_id]:
                    del self._untold[post_id]
        self._told[post_id, boot_id, seq] = told

    def settled(self, post_id: str, boot_id: str, seq: int) -> None:
        """The heartbeat of this boot and seq has landed."""
        self._told.pop((post_id, boot_id, seq), None)

    def unconfirmed(self) -> dict[str, list[SeqRange]]:
        """Everything that no heartbeat which landed has told, by post."""
        found = {
            post_id: [
                SeqRange(boot_id=boot_id, stream=stream, first_seq=first, last_seq=last)  # type: ignore[arg-type]
                for (boot_id, stream), spans in untold.items()
                for first, last in spans
            ]
            for post_id, untold in self._untold.items()
        }
        for (post_id, _, _), told in self._told.items():
            found.setdefault(post_id, []).extend(told)
        return found
