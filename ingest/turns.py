"""Whose turn it is to be told: at most once a second, one receipt at a time, longest waiting first. Pure."""

PERIOD_S = 1.0


class Turns:
    """A post waits from its first landing after its last receipt, and is told again only when that was answered: so a
    later receipt is never overtaken by an earlier one."""

    def __init__(self) -> None:
        self.waiting: dict[str, int] = {}
        self._unanswered: set[str] = set()
        self._told_at: dict[str, float] = {}

    def landed(self, post_id: str, received_us: int) -> None:
        """Something of the post landed that was received at this moment."""
        if post_id not in self.waiting:
            self.waiting[post_id] = received_us

    def take(self, now: float, room: int) -> list[tuple[str, int]]:
        """Up to `room` posts to be told now (monotonic seconds), each with the receipt of its first untold message."""
        taken: list[tuple[str, int]] = []
        if room <= 0:
            return taken
        for post_id, received_us in self.waiting.items():
            if post_id not in self._unanswered and now - self._told_at.get(post_id, -PERIOD_S) >= PERIOD_S:
                taken.append((post_id, received_us))
                if len(taken) == room:
                    break
        for post_id, _ in taken:
            del self.waiting[post_id]
            self._unanswered.add(post_id)
            self._told_at[post_id] = now
        return taken

    def answered(self, post_id: str) -> None:
        """The broker has the post's receipt, or has refused it."""
        self._unanswered.discard(post_id)

    def forget(self, now: float) -> None:
        """Let go of turns that bind no more; to be called now and then."""
        self._told_at = {post_id: at for post_id, at in self._told_at.items() if now - at < PERIOD_S}
