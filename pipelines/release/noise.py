"""Discrete Gaussian noise by OpenDP: exact integer sampling from a cryptographic source, never seeded.

Parameters of traffic volume: sigma 14.15 gives rho = 1 / (2 sigma^2) = 0.0025 per passage (zCDP, Bun and Steinke
2016); publish when the noised value is at least ceil(4 sigma) = 57, which a cell with one vehicle or none reaches
with a probability under 6e-5.
"""

import opendp.prelude as dp

SIGMA = 14.15
THRESHOLD = 57


def draw(counts: list[int], sigma: float = SIGMA) -> tuple[list[int], float]:
    """Counts plus fresh noise, and the rho that this costs when one passage changes one count by 1."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    measurement = space >> dp.m.then_gaussian(scale=sigma)
    noised: list[int] = list(measurement(counts))
    return noised, float(measurement.map(1.0))
