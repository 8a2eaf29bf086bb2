"""`python -m tests.durability.hurried run`: `pipelines run` with the chores of minutes in a second: compaction,
checkpoints, and the removal of what they replaced. The process of the chores imports this module too."""

from contracts.settings import run
from pipelines import chores, housekeeping, lake
from pipelines.__main__ import main

chores.TIDY_S, lake.CHECKPOINT_EVERY = 1, 3
housekeeping.SPANS_S, housekeeping.MANY_FILES = ((600, 0), (3600, 0)), 2
lake.QUERY_GRACE_S, lake.LOG_AFTER_S = 1, 0

if __name__ == "__main__":
    run(main)
