"""Faults, each with its own rate, decided by hashing (seed, post, stream, time): the same run has the same faults.

Two kinds: a fault of one message, whose rate is its probability, and an episode of a post, whose rate is how many
begin per post and hour.
"""

from dataclasses import dataclass

import numpy as np

from contracts.settings import SettingError
from sensors_sim import sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, mix, salt, uniform


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`minutes`: shortest and longest episode; None for a fault of one message. `streams`: where it may strike,
    empty for everywhere."""

    name: str
    rate: float
    minutes: tuple[float, float] | None = None
    streams: tuple[str, ...] = ()
    description: str


_SCALARS = ("weather", "air")
FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(name="drop", rate=0.001, description="lost in the device: its seq is given, the message never held"),
        Fault(name="wire", rate=0.001, description="sent and lost on the way; held, so that sending again heals it"),
        Fault(name="duplicate", rate=0.002, description="sent twice, byte for byte"),
        Fault(name="reorder", rate=0.002, description="sent after the next message of the same connection"),
        Fault(name="late", rate=0.002, minutes=(2, 120), description="the post is offline, then sends all at once"),
        Fault(name="skew", rate=0.002, minutes=(10, 60), description="the device's clock is off by 5 s to 10 min"),
        Fault(name="reboot", rate=0.005, minutes=(0, 0), description="a new boot_id, seq from 0, a birth"),
        Fault(name="stuck", rate=0.01, minutes=(10, 60), streams=_SCALARS, description="a value stands still"),
        Fault(name="spike", rate=0.0005, streams=_SCALARS, description="one value jumps inside its plausible range"),
        Fault(name="drift", rate=0.005, minutes=(30, 120), streams=_SCALARS, description="a value runs away slowly"),
        Fault(name="sentinel", rate=0.001, streams=_SCALARS, description="-999 or //// in place of a value"),
        Fault(name="out_of_range", rate=0.0005, streams=_SCALARS, description="a value beyond its plausible range"),
        Fault(name="malformed", rate=0.0003, description="not JSON: the last brace is a bracket"),
        Fault(name="truncated", rate=0.0003, description="cut off in the middle"),
        Fault(name="unknown_post", rate=0.0002, description="sent under a post id that no registry has"),
        Fault(name="wrong_topic", rate=0.0002, description="sent to a topic outside the grammar"),
        Fault(name="future", rate=0.0002, description="a time one to three days ahead"),
    )
}


@dataclass(frozen=True, eq=False)
class Episodes:
    """For each asked (post, time): whether an episode is on, its beginning, its end and its size in [0, 1)."""

    is_on: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    start_us: Ints
    end_us: Ints
    size: Floats


class FaultPlan:
    """The faults of one run: `rates` by fault name, 0 or absent for none. `spans`: least and greatest size by fault
    name, in place of its own: minutes of an episode; of a spike how many scatters it is off (tampering.scatter)."""

    def __init__(self, rates: dict[str, float], spans: dict[str, tuple[float, float]] | None = None):
        self.rates = {name: rate for name, rate in rates.items() if rate > 0}
        self.spans = spans or {}

    def strikes(self, city: City, name: str, stream: str, posts: Ints, time_us: Ints) -> Ints:
        """Rows that a one-message fault hits."""
        fault = FAULTS[name]
        if name not in self.rates or (fault.streams and stream not in fault.streams):
            return np.zeros(0, dtype=np.int64)
        keys = city.salted(posts, f"fault/{name}/{stream}")
        return np.flatnonzero(uniform(keys, time_us) < self.rates[name])

    def episodes(self, city: City, name: str, posts: Ints, time_us: Ints) -> Episodes:
        """Which rows lie in an episode of a fault; of two that overlap, the earlier."""
        shortest, longest = self.spans.get(name) or FAULTS[name].minutes or (0, 0)
        rows = len(posts)
        found = Episodes(np.zeros(rows, bool), np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows))
        if name not in self.rates:
            return found
        keys = city.salted(posts, f"fault/{name}")
        hour = time_us // sky.HOUR_US
        for back in range(int(longest // 60) + 1, -1, -1):
            own = mix(keys, hour - back)
            start_us = (hour - back) * sky.HOUR_US + (uniform(own, 1) * sky.HOUR_US).astype(np.int64)
            minutes = shortest + (longest - shortest) * uniform(own, 2)
            end_us = start_us + (minutes * 60e6).astype(np.int64)
            on = (uniform(own, 0) < self.rates[name]) & (start_us <= time_us) & (time_us < end_us) & ~found.is_on
            found.is_on[on] = True
            found.start_us[on], found.end_us[on], found.size[on] = start_us[on], end_us[on], uniform(own, 3)[on]
        return found

    def reboots(self, city: City, from_us: int, to_us: int) -> list[tuple[int, int]]:
        """(post index, time_us) of the reboots in (from, to], in order."""
        if "reboot" not in self.rates:
            return []
        keys = city.salted(np.arange(len(city.posts)), "fault/reboot")
        found = []
        for hour in range(from_us // sky.HOUR_US, to_us // sky.HOUR_US + 1):
            own = mix(keys, hour)
            when_us = hour * sky.HOUR_US + (uniform(own, 1) * sky.HOUR_US).astype(np.int64)
            hit = (uniform(own, 0) < self.rates["reboot"]) & (when_us > from_us) & (when_us <= to_us)
            found += [(int(post), int(when_us[post])) for post in np.flatnonzero(hit)]
        return sorted(found, key=lambda pair: pair[1])


def draw(city: City, post: int, time_us: int, name: str) -> float:
    """One number in [0, 1) for a fault's detail."""
    key = mix(city.keys[post : post + 1], int(salt(name) >> np.uint64(1)))
    return float(uniform(key, time_us)[0])


def parse(spec: str) -> FaultPlan:
    """`none`, `default`, or `name=rate,...`, where `name=rate:from-to` also gives the sizes. Raises SettingError that
    names what is wrong."""
    if spec == "none":
        return FaultPlan({})
    if spec == "default":
        return FaultPlan({fault.name: fault.rate for fault in FAULTS.values()})
    rates, spans = {}, {}
    for part in spec.split(","):
        name, _, text = part.partition("=")
        if name not in FAULTS:
            raise SettingError(f"--faults: no fault is called {name!r}; there are {', '.join(FAULTS)}")
        rate, _, span = text.partition(":")
        try:
            rates[name] = float(rate)
        except ValueError:
            rates[name] = -1.0
        if not 0 <= rates[name] <= 1:
            raise SettingError(f"--faults: {name} needs a rate from 0 to 1, as in {name}=0.001")
        if span:
            spans[name] = _span(name, span)
    return FaultPlan(rates, spans)


def _span(name: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        found = float(low), float(high)
    except ValueError:
        found = 0.0, 0.0
    if not (FAULTS[name].minutes or name == "spike") or not 0 < found[0] <= found[1]:
        raise SettingError(
            f"--faults: {name} cannot have the sizes {text!r}: episodes have minutes, as in stuck=0.01:60-180, and "
            "spikes scatters, as in spike=0.001:6-20"
        )
    return found
