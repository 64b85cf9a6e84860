"""Images of a street: materials, sun and shadows, lamps, sky, fog, exposure and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from ponderv2.synthetic.materials import albedo, tabulate
from ponderv2.synthetic.streets.casting import Candidates, Hits, Rays, ShadowCaster, StreetCaster
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.materials import tabulate_lasers
from ponderv2.synthetic.streets.rig import MountedCamera, Rig

NEAREST = 0.3
"""Objects nearer to a camera than that are looked for in the whole image, metres."""
LAMP_COLOR = np.array([1.0, 0.82, 0.55])
_EXPOSURE = {"clear": 1.0, "low sun": 1.05, "cloudy": 1.15, "rain": 1.3, "dusk": 2.2, "night": 2.8}


@dataclass(frozen=True)
class StreetView:
    """What one camera sees at one time, without noise."""

    color: Float[np.ndarray, "row column 3"]
    """0..1, not clipped."""
    depth: Float[np.ndarray, "row column"]
    """Along the optical axis, metres; inf where there is the sky."""
    label: Int[np.ndarray, "row column"]
    """Class in lidarseg; 0 where there is the sky."""
    actor: Int[np.ndarray, "row column"]
    """Number of the actor, -1 = none."""
    alone: dict[int, int]
    """Of every actor in the image: pixels that it would cover if nothing stood before it."""


class StreetCamera:
    """All cameras of the vehicle in a street."""

    def __init__(self, caster: StreetCaster, rig: Rig, config: StreetConfig) -> None:
        self._caster, self._rig, self._config = caster, rig, config
        self._light = caster.street.light
        self._table = tabulate(list(caster.materials))
        self._lasers = tabulate_lasers(caster.materials)

    def shadows(self, time: float) -> ShadowCaster:
        """What blocks light at a time, for `render`."""
        pose = self._caster.street.ego.matrices(np.array(time))
        return self._caster.shadows(time, (self._rig.body, pose))

    def render(self, camera: MountedCamera, time: float, shadows: ShadowCaster) -> StreetView:
        """The exact image of a camera at a time, seconds since the first key frame."""
        ego = self._caster.street.ego.matrices(np.array(time))
        to_world = ego @ camera.to_ego
        width, height = self._config.width, self._config.height
        column, row = np.meshgrid(np.arange(width), np.arange(height))
        pixel = np.stack([column, row, np.ones_like(column)], axis=-1).astype(float).reshape(-1, 3)
        direction = pixel @ np.linalg.inv(camera.intrinsics).T @ to_world[:3, :3].T
        origin = np.broadcast_to(to_world[:3, 3], direction.shape)
        rays = Rays(origin, direction, np.full(len(direction), time))
        hits = self._caster.cast(rays, self._candidates(camera, to_world))
        color = self._radiance(rays, hits, camera, shadows, ego)
        shape = (height, width)
        label = np.where(hits.part >= 0, self._caster.label[hits.part], 0)
        return StreetView(
            color.reshape(*shape, 3),
            hits.distance.reshape(shape),
            label.reshape(shape),
            hits.actor.reshape(shape),
            hits.alone,
        )

    def _candidates(self, camera: MountedCamera, to_world: Float[np.ndarray, "4 4"]) -> Candidates:
        """The pixels in the rectangle around a projected box."""
        inverse = np.linalg.inv(to_world)
        width, height = self._config.width, self._config.height

        def choose(corners: Float[np.ndarray, "8 3"]) -> Int[np.ndarray, " ray"]:
            local = corners @ inverse[:3, :3].T + inverse[:3, 3]
            if local[:, 2].max() < 0.05:
                return np.zeros(0, np.int64)
            if local[:, 2].min() < NEAREST:
                left, right, top, bottom = _clipped(local, camera.intrinsics, (width, height))
            else:
                pixel = local @ camera.intrinsics.T
                uv = pixel[:, :2] / pixel[:, 2:]
                (left, top), (right, bottom) = uv.min(axis=0) - 1.0, uv.max(axis=0) + 1.0
            columns = np.arange(max(int(np.floor(left)), 0), min(int(np.ceil(right)), width - 1) + 1)
            rows = np.arange(max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), height - 1) + 1)
            return (rows[:, None] * width + columns).reshape(-1)

        return choose

    def _radiance(
        self,
        rays: Rays,
        hits: Hits,
        camera: MountedCamera,
        shadows: ShadowCaster,
        ego: Float[np.ndarray, "4 4"],
    ) -> Float[np.ndarray, "ray 3"]:
        light = self._light
        unit = rays.direction / np.linalg.norm(rays.direction, axis=1, keepdims=True)
        color = light.sky(unit)
        seen = np.flatnonzero(hits.part >= 0)
        part, normal = hits.part[seen], hits.normal[seen]
        points = rays.origin[seen] + rays.direction[seen] * hits.distance[seen, None]
        frame = self._caster.texture_frame[part]
        local = np.einsum("pij,pj->pi", frame[:, :, :3], hits.local[seen].astype(np.float32)) + frame[:, :, 3]
        turned = np.einsum("pij,pj->pi", frame[:, :, :3], hits.local_normal[seen].astype(np.float32))
        footprint = (hits.distance[seen] / camera.intrinsics[0, 0]).astype(np.float32)
        paint = albedo(self._table, part, local.astype(np.float32), turned, footprint)
        lit = self._lit(points, normal, shadows, ego, seen, hits.distance[seen])
        glow = self._table.glow[part] + (self._lasers.night_glow[part] if light.dark else 0.0)
        surface = paint * lit + glow[:, None] * paint * 1.3
        mirrored = unit[seen] - 2.0 * (unit[seen] * normal).sum(axis=1, keepdims=True) * normal
        slant = 1.0 - np.abs((unit[seen] * normal).sum(axis=1))
        share = np.clip(self._lasers.shine[part] * (0.4 + 1.2 * slant**3), 0.0, 0.9)[:, None]
        mirrored[:, 2] = np.abs(mirrored[:, 2])
        surface = surface * (1.0 - 0.7 * share) + share * light.sky(mirrored) * np.clip(
            0.3 + mirrored[:, 2:3] * 2.0, 0.0, 1.0
        )
        far = np.linalg.norm(points - rays.origin[seen], axis=1)
        haze = (1.0 - np.exp(-light.fog * far))[:, None]
        color[seen] = surface + haze * (light.horizon - surface)
        return (color * _EXPOSURE[light.name]).astype(np.float32)

    def _lit(
        self,
        points: Float[np.ndarray, "point 3"],
        normal: Float[np.ndarray, "point 3"],
        shadows: ShadowCaster,
        ego: Float[np.ndarray, "4 4"],
        seen: Int[np.ndarray, " point"],
        distance: Float[np.ndarray, " point"],
    ) -> Float[np.ndarray, "point 3"]:
        """Light that falls on surface points."""
        light = self._light
        if light.soft < 0.05:
            towards = np.broadcast_to(light.sun, points.shape)
            cosine = np.clip((normal * towards).sum(axis=1), 0.0, 1.0)
            blocked = np.zeros(len(points), np.float32)
            facing = np.flatnonzero(cosine > 0.01)
            blocked[facing] = shadows.blocked(points[facing] + 0.02 * normal[facing], towards[facing])
            shade = 1.0 - 0.25 * blocked[:, None]
        else:
            towards = light.sun + 0.9 * normal + light.soft * _scatter(points)
            cosine = 0.45 + 0.55 * np.clip(normal[:, 2], 0.0, 1.0)
            blocked = self._smooth(shadows.blocked(points + 0.02 * normal, towards), seen, normal, distance)
            shade = 1.0 - 0.7 * blocked[:, None]
        direct = (cosine * (1.0 - blocked))[:, None] * light.sun_color
        ambient = light.ambient * (0.72 + 0.28 * normal[:, 2:3]) * shade
        total = direct + ambient
        if light.dark:
            total = total + self._lamps(points, normal, ego)
        return total

    def _smooth(
        self,
        values: Float[np.ndarray, " point"],
        seen: Int[np.ndarray, " point"],
        normal: Float[np.ndarray, "point 3"],
        distance: Float[np.ndarray, " point"],
    ) -> Float[np.ndarray, " point"]:
        """Mean over the pixels around that show the same surface: one ray a pixel is a noisy estimate."""
        reach, shape = 3, (self._config.height, self._config.width)
        maps = np.zeros((5, *shape), np.float32)
        maps.reshape(5, -1)[:, seen] = np.concatenate([values[None], distance[None], normal.T])
        padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
        total, count = np.zeros(shape, np.float32), np.full(shape, 1e-6, np.float32)
        for row in range(0, 2 * reach + 1):
            for column in range(0, 2 * reach + 1):
                near = padded[:, row : row + shape[0], column : column + shape[1]]
                same = np.abs(near[1] - maps[1]) < 0.06 * maps[1]
                same &= np.einsum("cij,cij->ij", near[2:], maps[2:]) > 0.8
                total += np.where(same, near[0], 0.0)
                count += same
        return (total / count).reshape(-1)[seen]

    def _lamps(
        self,
        points: Float[np.ndarray, "point 3"],
        normal: Float[np.ndarray, "point 3"],
        ego: Float[np.ndarray, "4 4"],
    ) -> Float[np.ndarray, "point 3"]:
        """Street lamps near the vehicle and its headlights, without shadows."""
        lamps = self._caster.street.lamps
        near = lamps[np.argsort(np.linalg.norm(lamps - ego[:3, 3], axis=1))[:14]]
        total = np.full((len(points), 1), 0.0)
        for lamp in near:
            to = lamp - points
            square = (to**2).sum(axis=1)
            cosine = np.clip((to * normal).sum(axis=1) / np.sqrt(square + 1e-6), 0.0, 1.0)
            total[:, 0] += 9.0 * (0.25 + 0.75 * cosine) / (square + 16.0) * np.clip(square / 4.0, 0.0, 1.0)
        local = (points - ego[:3, 3]) @ ego[:3, :3] - np.array([3.2, 0.0, 0.7])
        ahead = np.maximum(local[:, 0], 1e-3)
        beam = np.exp(
            -((local[:, 1] / (0.32 * ahead + 0.6)) ** 2)
            - (np.maximum(local[:, 2], 0.0) / (0.03 * ahead + 0.3)) ** 2
        )
        square = (local**2).sum(axis=1)
        beam = np.where(local[:, 0] > 0, beam * 60.0 / (square + 60.0), 0.0)
        return total * LAMP_COLOR + 0.5 * beam[:, None]


def _clipped(
    local: Float[np.ndarray, "8 3"], intrinsics: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a box that reaches behind the camera: open where it does so."""
    before = local[local[:, 2] >= NEAREST]
    left = top = 0.0
    right, bottom = float(size[0]), float(size[1])
    if len(before) and local[:, 2].max() > NEAREST:
        pixel = before @ intrinsics.T
        uv = pixel[:, :2] / pixel[:, 2:]
        behind = local[local[:, 2] < NEAREST]
        if behind[:, 0].min() > 0:
            left = float(uv[:, 0].min()) - 1.0
        if behind[:, 0].max() < 0:
            right = float(uv[:, 0].max()) + 1.0
    return left, right, top, bottom


def _scatter(points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
    """Directions that differ from point to point, the same in every image."""
    phase = (
        np.sin(points @ np.array([[127.1, 269.5, 419.2], [311.7, 183.3, 371.9], [74.7, 246.1, 168.3]]))
        * 43758.5453
    )
    return 2.0 * (phase - np.floor(phase)) - 1.0


def sense(rng: np.random.Generator, view: StreetView, noise: bool) -> UInt8[np.ndarray, "row column 3"]:
    """What the camera stores: blur, exposure, white balance, darker corners, a tone curve and noise."""
    from scipy.ndimage import correlate1d

    color = np.clip(view.color, 0.0, 2.0)
    if not noise:
        return to_bytes(_tone(color))
    kernel = np.array([0.15, 0.7, 0.15])
    blurred = correlate1d(correlate1d(color, kernel, axis=0), kernel, axis=1)
    gain = rng.uniform(0.85, 1.15) * (1.0 + rng.uniform(-0.03, 0.03, 3))
    height, width = view.depth.shape
    row, column = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    vignette = 1.0 - 0.08 * (row**2 + column**2)
    meter = float(np.clip(0.5 / max(float(np.median(blurred.mean(axis=2))), 1e-3), 0.6, 2.0))
    exposed = _tone(blurred * gain * meter**0.7 * vignette[..., None])
    deviation = 0.006 + 0.018 * np.sqrt(exposed)
    return to_bytes(exposed + deviation * rng.standard_normal(exposed.shape))


def _tone(color: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """A soft shoulder: bright places lose contrast instead of being cut."""
    return np.where(color < 0.7, color, 0.7 + 0.3 * (1.0 - np.exp(-(color - 0.7) / 0.3)))


def to_bytes(color: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour 0..1 to 0..255."""
    return np.clip(np.round(color * 255.0), 0, 255).astype(np.uint8)
