"""Many power cuts: `power_cuts(rounds, seed)` is for `make torture`. A traced run stands for ten rounds; a round takes
about ten seconds of two cores."""

import sys
import tempfile
from pathlib import Path
from random import Random

from tests.durability.cuts import cut, moments, record
from tests.durability.verdict import Verdict, judge

ROUNDS_PER_RUN = 10
SECONDS = 10.0


def power_cuts(rounds: int, seed: int) -> dict[str, float]:
    """Cut the power so often; what was lost and doubled in all, and how many cuts left anything that is not right.
    Each fault is a line on standard error. Needs Mosquitto and strace."""
    random = Random(seed)
    verdicts: list[Verdict] = []
    while len(verdicts) < rounds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = record(folder, SECONDS, seed=random.randrange(1_000_000))
            chosen = moments(run, min(ROUNDS_PER_RUN, rounds - len(verdicts)), random)
            for each in cut(run, chosen, folder / "cuts"):
                verdict = judge(each, folder / "quiet")
                for fault in verdict.faults:
                    print(f"power cut after {each.at} events: {fault}", file=sys.stderr, flush=True)
                verdicts.append(verdict)
    return {
        "power.cuts": len(verdicts),
        "power.lost": sum(verdict.lost for verdict in verdicts),
        "power.doubled": sum(verdict.doubled for verdict in verdicts),
        "power.unclean": sum(not verdict.is_clean for verdict in verdicts),
    }
