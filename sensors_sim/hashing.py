"""Noise as a pure function: a hash in place of a random generator, so that any moment can be computed alone.

The mixer is splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). Arrays
broadcast; every function is elementwise, so a value does not depend on the batch that it is computed in.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


def salt(*parts: object) -> np.uint64:
    """A 64-bit key of any names and numbers, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return np.uint64(int.from_bytes(blake2b(text, digest_size=8).digest(), "little"))


def mix(keys: Keys | np.uint64, numbers: Ints | int) -> Keys:
    """splitmix64's finaliser of key plus number times the golden gamma."""
    with np.errstate(over="ignore"):
        z = np.atleast_1d(keys) + (np.asarray(numbers, dtype=np.int64).astype(np.uint64) + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _M1
        z = (z ^ (z >> np.uint64(27))) * _M2
        mixed: Keys = z ^ (z >> np.uint64(31))
    return mixed


def uniform(keys: Keys | np.uint64, numbers: Ints | int) -> Floats:
    """Uniform in [0, 1) with 53 bits."""
    drawn: Floats = (mix(keys, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


def normal(keys: Keys | np.uint64, numbers: Ints | int) -> Floats:
    """Standard normal (Box and Muller 1958)."""
    first = uniform(keys, numbers)
    second = uniform(mix(keys, 0x5EED), numbers)
    drawn: Floats = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    return drawn


def smooth(keys: Keys, time_us: Ints, scale_s: float) -> Floats:
    """Slowly changing noise, about standard normal: independent normals each `scale_s` seconds, joined by cosines
    whose weights keep the variance at one."""
    knots, rest = np.divmod(np.asarray(time_us, dtype=np.int64), round(scale_s * 1e6))
    angle = rest / (scale_s * 1e6) * (np.pi / 2)
    joined: Floats = normal(keys, knots) * np.cos(angle) + normal(keys, knots + 1) * np.sin(angle)
    return joined
