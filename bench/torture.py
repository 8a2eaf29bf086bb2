"""`make torture ROUNDS=N`: the whole city under load while whatever runs is killed with -9 at random moments.

A round kills one stage or several, or makes the broker forget everything, or fills the disk; it ends when everything
lives again: a heartbeat made after the kill (after the disk's relief) is in the raw log, receipted, and in the lake.
At the end the devices send until they hold nothing without a receipt, and every message that any of them was told to
forget must be one reading or in quarantine. `torture.lost`, `torture.doubled`: those that are not;
`torture.recovery_p95_s`: from kill to live again.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench import laws
from bench.figures import figure
from bench.probe import LOOK_S, Probe
from bench.supervisor import Supervisor, is_root, limit_files
from bench.verdict import Verdict, judge
from contracts.events import events_path, read_events
from contracts.layout import Layout
from contracts.registry import load_registry
from tests.broker import MOSQUITTO, Mosquitto
from tests.end_to_end.city import ROOT, City

POSTS = 40
INSTANCES = ("a", "b")
PATIENCE_S = 120.0
RAW_MIB = 1024
FULL_S = 3.0
FAULTS = (
    "drop=0.002,wire=0.003,duplicate=0.005,reorder=0.005,late=0.05,reboot=0.5,skew=0.02,sentinel=0.001,"
    "out_of_range=0.001,malformed=0.001,truncated=0.001,unknown_post=0.0005,wrong_topic=0.0005,future=0.0005"
)
STAGES = ("receipts", "pipelines", "fleet", *(f"ingest {name}" for name in INSTANCES))
# what a round may do, and how often
KINDS = (
    *("ingest", "ingest", "ingest", "pipelines", "pipelines", "receipts", "receipts", "broker", "broker", "fleet"),
    *("some", "some", "all"),
)
FIRST = ("ingest", "pipelines", "disk", "receipts", "broker", "forgetful", "fleet", "all")  # once each, in any order


class StuckError(Exception):
    """Something did not live again."""


@dataclass
class Torture:
    """The city under torture."""

    city: City
    broker: Mosquitto
    stages: Supervisor
    probe: Probe
    random: Random
    is_mounted: bool
    recoveries: dict[str, list[float]] = field(default_factory=dict)

    def round(self, kind: str) -> dict[str, float]:
        """One kill at a random moment; seconds until each part of the way lives again."""
        time.sleep(self.random.uniform(0.2, 1.5))
        began = time.monotonic()
        if kind == "disk":
            self.fill_the_disk()
            began = time.monotonic()
        elif kind == "forgetful":
            self.broker.kill()
            (self.broker.folder / "mosquitto.db").unlink(missing_ok=True)
            self.broker.start()
        else:
            names = self._names(kind)
            if "broker" in names:
                self.broker.kill()
            self.stages.kill([name for name in names if name != "broker"])
            if "broker" in names:
                time.sleep(self.random.uniform(0, 0.5))
                self.broker.start()
        parts = self.wait_until_live(began, kind)
        self.recoveries.setdefault(kind, []).append(max(parts.values()))
        return parts

    def _names(self, kind: str) -> list[str]:
        everything = [*STAGES, "broker"]
        if kind == "all":
            return everything
        if kind == "some":
            return self.random.sample(everything, self.random.randint(2, 3))
        return [self.random.choice([name for name in everything if name.startswith(kind)])]

    def wait_until_live(self, since_s: float, what: str) -> dict[str, float]:
        """Seconds from `since_s` until each part of the way has a heartbeat made after it. Raises StuckError when that
        takes too long."""
        parts: dict[str, float] = {}
        while True:
            spent_s = time.monotonic() - since_s
            seen = self.probe.seen(since_s) | {"stages": self.stages.is_up()}
            parts |= {part: spent_s for part, is_seen in seen.items() if is_seen and part not in parts}
            if all(seen.values()):
                return parts
            if spent_s > PATIENCE_S:
                raise StuckError(f"not live {PATIENCE_S:g} s after {what}: {seen}")
            time.sleep(LOOK_S)

    def fill_the_disk(self) -> None:
        """No instance can commit for some seconds; nothing is restarted, and room is made again."""
        before = self._refusals()
        ballast = self.city.layout.raw / "ballast"
        pids = [self.stages.pid(f"ingest {name}") for name in INSTANCES]
        try:
            if self.is_mounted:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(bytes(1 << 20)):
                        pass
            else:
                for pid in pids:
                    limit_files(pid, 0)
            time.sleep(FULL_S)
        finally:
            if self.is_mounted:
                ballast.unlink(missing_ok=True)
            else:
                for pid in pids:
                    limit_files(pid, None)
        until = time.monotonic() + PATIENCE_S
        while self._refusals() == before:
            if time.monotonic() > until:
                raise StuckError("no instance noticed that the disk was full")
            time.sleep(LOOK_S)

    def _refusals(self) -> int:
        events = [read_events(events_path(self.city.layout.raw, name)) for name in INSTANCES]
        return sum(event.kind == "disk_failed" for each in events for event in each)


def plan(rounds: int, random: Random) -> list[str]:
    """What each round does: everything once, then at random."""
    first = list(FIRST)
    random.shuffle(first)
    return [*first, *(random.choice(KINDS) for _ in range(rounds - len(first)))][:rounds]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own for the raw log where that is allowed, so that it can be filled; whether it is."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={RAW_MIB}m", "lamplight-torture", str(folder)]
    is_mounted = is_root() and subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def torture(
    folder: Path, kinds: list[str], random: Random, rate: float, faults: str = FAULTS
) -> tuple[Verdict, dict[str, list[float]]]:
    """Run a round of each kind, drain and judge; also the recoveries by kind, in seconds. Raises StuckError when
    something does not live again."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(folder / "mosquitto"))
        layout = Layout(folder / "data")
        is_mounted = stack.enter_context(small_disk(layout.raw))
        city = stack.enter_context(City(layout.root, broker.port, LAMPLIGHT_TICK_S="0.2"))
        city.run("sensors_sim", "fleet", "--posts", str(POSTS + 1))
        receipted, truth = folder / "receipted.ndjson", folder / "truth.ndjson"
        publish = ["sensors_sim", "publish", "--posts", str(POSTS), "--connections", "post", "--rate", str(rate)]
        publish += ["--receipted", str(receipted), "--truth", str(truth), "--resend-after", "3", "--give-up", "4"]
        post_id = _last_post(layout)
        stages = stack.enter_context(Supervisor(city.environment, ROOT, folder / "stages.log"))
        for name in INSTANCES:
            stages.start(f"ingest {name}", "ingest", "run", "--instance", name)
        stages.start("receipts", "ingest", "receipts")
        stages.start("pipelines", "pipelines", "run", "--no-release")
        stages.start("fleet", *publish, "--faults", faults)
        probe = Probe(layout, broker.port, post_id).start()
        stack.callback(probe.close)
        run = Torture(city, broker, stages, probe, random, is_mounted)
        run.wait_until_live(time.monotonic(), "the start")
        for number, kind in enumerate(kinds, 1):
            parts = ", ".join(f"{part} {spent_s:.1f}" for part, spent_s in run.round(kind).items())
            print(f"round {number}/{len(kinds)}: {kind}, seconds to live again: {parts}", file=sys.stderr, flush=True)
        probe.close()
        drain(run, publish)
        for name, code in stages.ends:
            print(f"{name} ended by itself with exit code {code}", file=sys.stderr)
        return judge(layout, receipted, truth, post_id), run.recoveries


def drain(run: Torture, publish: list[str]) -> None:
    """Let the devices send until they hold nothing, stop all in order, take up the rest. Raises StuckError."""
    print("draining", file=sys.stderr, flush=True)
    codes = {"fleet": run.stages.stop("fleet")}
    try:
        run.city.run(*publish, "--seconds", "1", "--confirm", timeout_s=600)
        for name in (*(f"ingest {name}" for name in INSTANCES), "receipts", "pipelines"):
            codes[name] = run.stages.stop(name)
        run.city.run("pipelines", "run", "--once", "--no-release", timeout_s=600)
        run.city.run("warehouse", "publish", timeout_s=600)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        raise StuckError(str(error)[-2000:]) from error
    if any(codes.values()):
        raise StuckError(f"not every stage ends well: {codes}")


def _last_post(layout: Layout) -> str:
    """The post that `publish --posts POSTS` leaves out."""
    posts = load_registry(layout.registry).valid(time.time_ns() // 1000)
    return max(posts, key=lambda post: (post.post_id[2:], post.post_id)).post_id


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def main(argv: list[str]) -> int:
    """Torture, then say what it cost; the exit code is not 0 when anything was lost or doubled."""
    top = argparse.ArgumentParser(prog="python -m bench.torture", description=__doc__)
    top.add_argument("--rounds", type=int, default=200)
    top.add_argument("--seed", type=int, default=1)
    top.add_argument("--rate", type=float, default=300.0, help="messages a second (300)")
    top.add_argument("--cuts", type=int, default=0, help="power cuts besides, 12 s each (0)")
    top.add_argument("--laws", type=int, default=0, help="plans of arrival besides, 10 s each (0)")
    top.add_argument("--folder", type=Path, help="where it is done, and kept (a temporary folder)")
    arguments = top.parse_args(argv)
    if MOSQUITTO is None:
        print("torture: not measured: mosquitto is not installed", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            random = Random(arguments.seed)
            verdict, recoveries = torture(folder, plan(arguments.rounds, random), random, arguments.rate)
        except StuckError as error:
            print((folder / "stages.log").read_text()[-3000:], file=sys.stderr)
            print(f"torture: {error}", file=sys.stderr)
            return 1
    for kind, spent_s in sorted(recoveries.items()):
        print(f"{kind}: {len(spent_s)} rounds, p95 {p95(spent_s):.1f} s, longest {max(spent_s):.1f} s", file=sys.stderr)
    for fault in verdict.faults:
        print(fault, file=sys.stderr)
    print(f"{verdict.receipted} receipted, {verdict.unexplained} missing unexplained", file=sys.stderr)
    every = [spent_s for each in recoveries.values() for spent_s in each]
    figure("torture.lost", value=verdict.lost, unit="messages", of=verdict.receipted)
    figure("torture.doubled", value=verdict.doubled, unit="messages", of=verdict.receipted)
    figure("torture.recovery_p95_s", value=p95(every), unit="s", rounds=len(every))
    code = 1 if verdict.lost or verdict.doubled or verdict.unexplained else 0
    if arguments.laws:
        code = laws.main(["--laws", str(arguments.laws), "--seed", str(arguments.seed)]) or code
    return power_cuts(arguments.cuts, arguments.seed) or code if arguments.cuts else code


def power_cuts(count: int, seed: int) -> int:
    """What power cuts cost, which keep less than a kill does; the exit code."""
    if shutil.which("strace") is None:
        print("power cuts: not measured: strace is not installed", file=sys.stderr)
        return 1
    from tests.durability import torture as power

    found = power.power_cuts(count, seed)
    for name, value in found.items():
        figure(f"torture.{name.replace('.', '_')}", value=value, unit="cuts" if name == "power.cuts" else "messages")
    return 1 if any(value for name, value in found.items() if name != "power.cuts") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
