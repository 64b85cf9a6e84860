"""Small streets of known shape: a plain, a wall and a box that moves."""

from __future__ import annotations

import numpy as np

from ponderv2.synthetic.parts import Part, box
from ponderv2.synthetic.streets.actors import Actor
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.light import draw_light
from ponderv2.synthetic.streets.materials import flat
from ponderv2.synthetic.streets.models import Model
from ponderv2.synthetic.streets.motion import Track
from ponderv2.synthetic.streets.road import Profile, Road
from ponderv2.synthetic.streets.shapes import quads
from ponderv2.synthetic.streets.street import Street

GREY = flat((0.5, 0.5, 0.5), 0.5)
EXACT = StreetConfig(noise=False, columns=180, width=64, height=36, conditions="clear")
TIME = np.array([-1.0, 3.0])
ROAD_CLASS, WALL_CLASS, CAR_CLASS = 24, 28, 17


def straight(speed: float, start: tuple[float, float], yaw: float = 0.0) -> Track:
    """A body that moves ahead at a constant speed; it is at `start` at time 0."""
    way = speed * TIME
    x, y = start[0] + way * np.cos(yaw), start[1] + way * np.sin(yaw)
    return Track(TIME, np.column_stack([x, y, 0 * way, 0 * way + yaw]), way)


def block(size: tuple[float, float, float], track: Track) -> Actor:
    """A box of length, width and height that stands on its track."""
    length, width, height = size
    part = box((-length / 2, -width / 2, 0.0), (length / 2, width / 2, height), GREY)
    return Actor(Model.rigid("vehicle.car", [part]), track)


def plain(half: float = 500.0) -> Part:
    """The ground z = 0."""
    corners = np.array([(-half, -half, 0.0), (half, -half, 0.0), (half, half, 0.0), (-half, half, 0.0)])
    return quads(corners[None], GREY)


def wall(x: float) -> Part:
    """A wall whose near face is the plane at x."""
    return box((x, -40.0, 0.0), (x + 1.0, 40.0, 12.0), GREY)


def stage(*actors: Actor, walls: tuple[float, ...] = (), speed: float = 0.0) -> Street:
    """A plain with walls and actors; the vehicle that measures starts at the origin along +x."""
    static = ((ROAD_CLASS, plain()), *((WALL_CLASS, wall(x)) for x in walls))
    profile = Profile(1, 3.2, 0.0, 0.0, 0.0, 0.0, 2.0)
    line = np.column_stack([np.arange(-120.0, 221.0), np.zeros(341), np.zeros(341)])
    road = Road(100.0, profile, (), -1, line, np.zeros((1, 4)))
    light = draw_light(np.random.default_rng(0), "clear")
    return Street(road, static, actors, straight(speed, (0.0, 0.0)), light, np.zeros((0, 3)))
