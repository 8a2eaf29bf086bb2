"""Posts are told at most once a second, in turn, and never while their last receipt is unanswered."""

from ingest.turns import Turns


def names(taken: list[tuple[str, int]]) -> list[str]:
    return [post_id for post_id, _ in taken]


def test_at_most_once_a_second_and_only_who_has_something_new() -> None:
    turns = Turns()
    turns.landed("A", 5)
    turns.landed("A", 6)
    assert turns.take(0.0, 10) == [("A", 5)]
    assert turns.take(5.0, 10) == []
    turns.answered("A")
    assert turns.take(5.0, 10) == []
    turns.landed("A", 7)
    assert turns.take(5.0, 10) == [("A", 7)]
    turns.answered("A")
    turns.landed("A", 8)
    assert turns.take(5.9, 10) == []
    assert turns.take(6.0, 10) == [("A", 8)]


def test_an_unanswered_receipt_holds_the_next_one_back() -> None:
    turns = Turns()
    turns.landed("A", 5)
    assert names(turns.take(0.0, 10)) == ["A"]
    turns.landed("A", 6)
    turns.landed("B", 7)
    assert names(turns.take(3.0, 10)) == ["B"]
    turns.answered("A")
    assert turns.take(3.0, 10) == [("A", 6)]


def test_without_room_nobody_is_told_and_the_longest_waiting_come_first() -> None:
    turns = Turns()
    for number in range(5):
        turns.landed(str(number), number)
    assert turns.take(0.0, 0) == []
    assert names(turns.take(0.0, 2)) == ["0", "1"]
    turns.answered("0")
    turns.landed("0", 9)
    assert names(turns.take(2.0, 3)) == ["2", "3", "4"]
    turns.forget(10.0)
    assert names(turns.take(10.0, 3)) == ["0"]
