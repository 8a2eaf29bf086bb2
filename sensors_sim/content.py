"""What a message says: the measured fields of each slot, without the device's own head."""

from typing import Any

import numpy as np

from contracts.payloads import ClassCounts, Lane
from sensors_sim import roads, signals, sky, streets
from sensors_sim.city import City
from sensors_sim.hashing import Ints, normal
from sensors_sim.schedule import Slots

FIRMWARE = "2.3.1"
Fields = dict[str, Any]


def measured(city: City, slots: Slots) -> list[Fields]:
    """The fields of every slot, in order: arguments of the stream's struct in contracts.payloads."""
    posts, time_us = slots.posts, slots.time_us
    if slots.stream == "traffic":
        return _traffic(city, posts, time_us)
    if slots.stream == "pedestrian":
        into, out = streets.crossings(city, posts, time_us)
        return [
            {"crossings_in_count": a, "crossings_out_count": b}
            for a, b in zip(into.tolist(), out.tolist(), strict=True)
        ]
    if slots.stream == "dumping":
        _, _, kinds, confidences = streets.dumping(city, posts, time_us // sky.HOUR_US)
        return [
            {"kind": streets.KINDS[kind], "confidence": confidence}
            for kind, confidence in zip(kinds.tolist(), confidences.tolist(), strict=True)
        ]
    if slots.stream == "status":
        offsets = np.round(0.02 * normal(city.salted(posts, "clock"), time_us), 3)
        return [{"firmware": FIRMWARE, "clock_offset_s": offset} for offset in offsets.tolist()]
    return _scalars(city, slots.stream, posts, time_us)


def _scalars(city: City, stream: str, posts: Ints, time_us: Ints) -> list[Fields]:
    suites = [city.posts[post].quantities(stream) for post in posts.tolist()]
    names = sorted({name for suite in suites for name in suite})
    columns = {name: signals.value(city, name, posts, time_us).tolist() for name in names}
    return [{name: columns[name][row] for name in suite} for row, suite in enumerate(suites)]


def _traffic(city: City, posts: Ints, time_us: Ints) -> list[Fields]:
    found = roads.lane_summaries(city, posts, time_us)
    rows = zip(
        found.message.tolist(),
        found.vehicles.tolist(),
        found.classes.tolist(),
        found.speeds.tolist(),
        found.mean_kmh.tolist(),
        found.sd_kmh.tolist(),
        found.inverse_h_km.tolist(),
        found.occupancy_pct.tolist(),
        found.release_sum.tolist(),
        strict=True,
    )
    places = [
        [(lane, way.direction_id) for way in city.posts[post].directions for lane in way.lanes]
        for post in posts.tolist()
    ]
    fields: list[Fields] = [{"lanes": []} for _ in places]
    for message, vehicles, classes, speeds, mean, sd, inverse, occupancy, release in rows:
        lanes = fields[message]["lanes"]
        lane, direction = places[message][len(lanes)]
        counts = ClassCounts(
            motorcycle=classes[0],
            private_car=classes[1],
            taxi=classes[2],
            light_goods=classes[3],
            heavy_goods=classes[4],
            bus=classes[5],
            other=classes[6],
        )
        lanes.append(
            Lane(
                lane=lane,
                direction=direction,
                vehicle_count=vehicles,
                class_counts=counts,
                speed_count=speeds,
                mean_speed_kmh=mean if speeds else None,
                speed_sd_kmh=sd if speeds else None,
                inverse_speed_sum_h_km=inverse,
                occupancy_pct=occupancy,
                release_speed_sum=release,
            )
        )
    return fields
