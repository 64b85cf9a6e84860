"""One generated street: the background, the actors, the drive and the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.parts import Part
from ponderv2.synthetic.streets.actors import Actor
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.ground import make_ground
from ponderv2.synthetic.streets.light import Light, draw_light
from ponderv2.synthetic.streets.motion import Track
from ponderv2.synthetic.streets.road import Road, make_road
from ponderv2.synthetic.streets.scenery import Site, build, choose_frontages
from ponderv2.synthetic.streets.traffic import EGO_START, drive

FASTEST = 14.0
"""Metres per second; the street is long enough for it."""
VIEW = 105.0
"""Metres of street before and behind the drive."""


@dataclass(frozen=True)
class Street:
    """Everything that sensors can measure. Metres, seconds since the first key frame."""

    road: Road
    static: tuple[tuple[int, Part], ...]
    """Class of the points and part, in the frame of the world."""
    actors: tuple[Actor, ...]
    ego: Track
    """Of the middle of the rear axle, on the ground."""
    light: Light
    lamps: Float[np.ndarray, "lamp 3"]
    """Bulbs of street lamps."""


def make_street(rng: np.random.Generator, config: StreetConfig) -> Street:
    """Draw everything: the plan, what stands, who moves."""
    seconds = (config.key_frames - 1) * 0.5
    road = make_road(rng, EGO_START + FASTEST * 0.8 * seconds + VIEW, seconds)
    light = draw_light(rng, config.conditions)
    site = Site(road, rng)
    frontages = choose_frontages(rng, road)
    site.static += make_ground(rng, road, frontages, light.wet)
    build(site, frontages, config.traffic)
    ego = drive(site, seconds, config.traffic)
    lamps = np.array(site.lamps).reshape(-1, 3)
    return Street(road, tuple(site.static), tuple(site.actors), ego, light, lamps)
