"""`python -m pipelines.workers PORT`: the pool of external workers, each a process that can import what our driver can.

Beam's own pool leaves its workers behind when it is killed, and does not notice when one of them dies. This one ends
when a worker does, and workers end with it.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.sdk_worker import SdkHarness

LOOK_S = 0.5


class Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process for each worker that a runner asks for. Methods are named as Beam calls them."""

    def __init__(self) -> None:
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def StartWorker(self, request: beam_fn_api_pb2.StartWorkerRequest, _: object) -> object:
        # with the lock of the lake, which this process holds by inheritance
        command = [sys.executable, "-m", "pipelines.workers", str(os.getpid())]
        worker = [request.control_endpoint.url, request.worker_id]
        self.workers[request.worker_id] = subprocess.Popen(command + worker, close_fds=False)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: beam_fn_api_pb2.StopWorkerRequest, _: object) -> object:
        worker = self.workers.pop(request.worker_id, None)
        if worker is not None:
            worker.kill()
            worker.wait()
        return beam_fn_api_pb2.StopWorkerResponse()


def serve(port: int) -> int:
    """Serve until a worker dies that was not asked to; the exit code."""
    pool, server = Pool(), grpc.server(ThreadPoolExecutor(4))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.add_insecure_port(f"localhost:{port}")
    server.start()
    while all(worker.poll() is None for worker in list(pool.workers.values())):
        time.sleep(LOOK_S)
    print("a worker died", file=sys.stderr)
    return 1


def work(parent: int, control: str, worker_id: str) -> int:
    """Be a worker until the runner or the pool is gone; the exit code."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    SdkHarness(control, worker_id=worker_id).run()
    return 0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    number, *worker = sys.argv[1:]
    os._exit(work(int(number), *worker) if worker else serve(int(number)))  # threads of gRPC would keep it
