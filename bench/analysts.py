"""Many analysts ask while the pipeline commits: `python -m bench.warehouse --part analysts`.

`catalogue.commit_p50.busy/alone`: how long a publishing of the catalogue takes, from the look at the lake to the swap,
while so many analysts (bench/analyst.py) ask, against before and after them in the same run; `catalogue.commit_p95_ms`
of the busy ones. The city runs as it is: a feed of the pilot's 40 messages a second with late and repeated ones,
`pipelines run`, `warehouse publish --follow`. An error or a torn answer is a figure that could not be measured.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.figures import figure
from bench.freshness import percentile
from bench.month import ENVIRON, month
from tests.end_to_end.city import City, wait_for

LOOK_S = 0.05
READY_S = 20.0  # for the analysts to start
LEAVE_S = 300.0  # for the last answers


def measure(root: Path, options: argparse.Namespace) -> None:
    """Print the figures. Raises LookupError when a question failed, an answer was torn or too little was seen."""
    month(root, options.days, options.posts)
    alone_s = max(10.0, options.seconds / 5)
    city = City(root, 0, **ENVIRON)
    samples: dict[str, list[float]] = {"alone": [], "busy": []}
    try:
        city.start("pipelines", "run")
        city.start("warehouse", "publish", "--follow")
        city.start("bench.feed", str(root), "--rate", "40", "--seconds", str(options.seconds + 2 * alone_s + 600))
        wait_for("publishings", lambda: city.progress("warehouse").get("published", 0) > 5, patience_s=300)
        _watch(city, samples["alone"], alone_s)
        since_s = time.time() + READY_S
        begun = [_start(city, root, since_s, options.seconds, seed) for seed in range(options.analysts)]
        time.sleep(max(0.0, since_s - time.time()))
        _watch(city, samples["busy"], options.seconds)
        answers = [json.loads(process.communicate(timeout=LEAVE_S)[0]) for process in begun]
        _watch(city, samples["alone"], alone_s)
    except subprocess.TimeoutExpired as error:
        raise LookupError("an analyst still waits for an answer") from error
    finally:
        city.close()
    _report(samples, answers)


def _start(city: City, root: Path, since_s: float, seconds: float, seed: int) -> "subprocess.Popen[bytes]":
    span = ["--since", str(since_s), "--until", str(since_s + seconds)]
    command = [sys.executable, "-m", "bench.analyst", str(root), *span, "--seed", str(seed)]
    process = subprocess.Popen(command, env=city.environment, stdout=subprocess.PIPE)
    city.running.append(process)
    return process


def _watch(city: City, samples: list[float], seconds: float) -> None:
    """Note how long publishing took, each time that the publisher tells."""
    published, until = city.progress("warehouse")["published"], time.monotonic() + seconds
    while time.monotonic() < until:
        told = city.progress("warehouse")
        if told["published"] != published:
            published = told["published"]
            samples.append(told["publish_s"] * 1000)
        time.sleep(LOOK_S)
    print(f"{len(samples)} publishings seen", file=sys.stderr)


def _report(samples: dict[str, list[float]], answers: list[dict[str, Any]]) -> None:
    spent = [one for answer in answers for one in answer["spent_ms"]]
    for kind in ("errors", "torn"):
        if found := [one for answer in answers for one in answer[kind]]:
            raise LookupError(f"{len(found)} {kind}, the first: {found[0]}")
    if not all(samples.values()) or not spent or not sum(answer["spans"] for answer in answers):
        raise LookupError("nothing was published, asked or fed")
    busy, alone = (percentile(samples[name], 0.5) for name in ("busy", "alone"))
    figure("catalogue.commit_p50.busy/alone", value=busy, unit="ms", against=alone, publishings=len(samples["busy"]))
    figure("catalogue.commit_p95_ms", value=percentile(samples["busy"], 0.95), unit="ms", analysts=len(answers))
    figure("analysts.question_p50_ms", value=percentile(spent, 0.5), unit="ms", questions=len(spent))
    figure("analysts.question_p95_ms", value=percentile(spent, 0.95), unit="ms", questions=len(spent))
