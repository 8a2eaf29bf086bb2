"""`python -m pipelines.submission`: the driver of the unbounded graph. It submits it and stays until the job ends;
with LOOPBACK its threads are the workers. Started and ended by `pipelines stream`, whose arguments it takes."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PipelineResult, PortableMetrics
from apache_beam.transforms.trigger import AfterProcessingTime, Repeatedly

from contracts import settings
from contracts.layout import Positions, write_progress
from pipelines import coders
from pipelines.config import from_environment, parser
from pipelines.graph import CleanAndAggregate, met
from pipelines.source import ReadSegments
from pipelines.supervision import COUNTS, folder
from pipelines.told import TellFn

# whole seconds only (Beam 2.77); shorter would only make more and smaller commits
TRIGGER_S = 1
COUNT_S = 2.0


def main(argv: list[str]) -> int:
    """Run the job; the exit code. Ends with SIGTERM, the job cancelled."""
    arguments = parser().parse_args(argv)
    setup = from_environment(os.environ, arguments).setup
    # workers may run elsewhere, and see none of our environment
    setup = replace(setup, root=setup.root.absolute(), registry=setup.registry.absolute())
    options = PipelineOptions(["--streaming", *arguments.beam])
    coders.register()
    pipeline = beam.Pipeline(runner=arguments.runner, options=options)
    _ = (
        pipeline
        | ReadSegments(setup=setup, offsets=Positions.load(setup.layout.positions).offsets)
        | CleanAndAggregate(setup=setup, trigger=Repeatedly(AfterProcessingTime(TRIGGER_S)))
        | beam.ParDo(TellFn(setup.layout))
    )
    result = pipeline.run()

    def end(*_: object) -> None:
        try:
            result.cancel()
        finally:
            os._exit(0)  # threads of gRPC would keep it

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_count, args=(result, folder(setup.layout) / COUNTS), daemon=True).start()
    state = result.wait_until_finish()
    print(f"the job ended: {state}", file=sys.stderr)
    return 1


def _count(result: PipelineResult, path: Path) -> None:
    """Write what the job has met so far, by the names of `counts`, now and then."""
    request = beam_job_api_pb2.GetJobMetricsRequest(job_id=result._job_id)
    while True:
        time.sleep(COUNT_S)
        with contextlib.suppress(grpc.RpcError):
            write_progress(path, {**met(PortableMetrics(result._job_service.GetJobMetrics(request)))})


if __name__ == "__main__":
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    settings.run(main)
