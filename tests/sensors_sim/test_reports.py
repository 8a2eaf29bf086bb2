"""What is to be told less what was told is a difference of sets, never more."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.payloads import SeqRange
from sensors_sim.reports import Reports

BOOT = "00000000000000a1"
spans = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=5)


@given(spans, spans)
def test_what_an_earlier_run_has_told_is_not_told_again(
    dropped: list[tuple[int, int]], told: list[tuple[int, int]]
) -> None:
    reports = Reports()
    for first, more in dropped:
        reports.add("KT1000", BOOT, "air", first, first + more)
    for number, (first, more) in enumerate(told):
        said = SeqRange(boot_id=BOOT, stream="air", first_seq=first, last_seq=first + more)
        reports.was_told("KT1000", BOOT, number, [said])
    found = [seq for span in reports.tell("KT1000", BOOT, 99) for seq in range(span.first_seq, span.last_seq + 1)]
    wanted = {seq for first, more in dropped for seq in range(first, first + more + 1)}
    assert set(found) == wanted - {seq for first, more in told for seq in range(first, first + more + 1)}
    assert reports.has_untold("KT1000") is False
