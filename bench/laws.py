"""`make torture LAWS=N`: the laws of the pipelines on N random plans and logs longer than those of the tests.

`laws.broken`: plans after which a table differs from that of one worker who sees all at once. A plan that breaks a law
is said on standard error with the command that carries it out again.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from random import Random

from bench.figures import figure
from tests.pipelines import laws
from tests.pipelines.rich_log import rich

PLANS_PER_LOG = 4


def broken(seed: int, count: int, minutes: int) -> int:
    """How many of `count` plans from `seed` on break the law; they are said on standard error."""
    found = 0
    for log_seed in sorted({number // PLANS_PER_LOG for number in range(seed, seed + count)}):
        landed = rich(log_seed, minutes)
        with tempfile.TemporaryDirectory() as folder:
            wanted = laws.in_one_go(Path(folder), landed)
        numbers = range(max(seed, log_seed * PLANS_PER_LOG), min(seed + count, (log_seed + 1) * PLANS_PER_LOG))
        for number in numbers:
            plan = laws.draw(Random(number))
            with tempfile.TemporaryDirectory() as folder:
                try:
                    what = laws.difference(wanted, laws.carry_out(Path(folder), landed, plan))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    what = f"{type(error).__name__}: {error}"
            if what is not None:
                found += 1
                again = f"python -m bench.laws --laws 1 --seed {number} --minutes {minutes}"
                print(f"a law is broken, again with `{again}`: {plan}: {what}", file=sys.stderr, flush=True)
            else:
                print(f"plan {number}: {len(landed)} messages, {plan.engine}: equal", file=sys.stderr, flush=True)
    return found


def main(argv: list[str]) -> int:
    """Carry the plans out; the exit code is not 0 when one breaks the law."""
    top = argparse.ArgumentParser(prog="python -m bench.laws", description=__doc__)
    top.add_argument("--laws", type=int, default=100, help="plans (100)")
    top.add_argument("--seed", type=int, default=1, help="the first plan's number (1)")
    top.add_argument("--minutes", type=int, default=150, help="length of the logs (150)")
    arguments = top.parse_args(argv)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    found = broken(arguments.seed, arguments.laws, arguments.minutes)
    figure("laws.broken", value=found, unit="plans", of=arguments.laws, seed=arguments.seed)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
