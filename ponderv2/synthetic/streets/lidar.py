"""A spinning LiDAR of 32 lasers on a moving vehicle: ranges, intensities, missing and wrong points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ponderv2.geometry.raycasting import Raycaster
from ponderv2.synthetic.streets.casting import Candidates, Hits, Rays, StreetCaster
from ponderv2.synthetic.streets.classes import LABELS
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.materials import LaserTable, tabulate_lasers
from ponderv2.synthetic.streets.rig import PERIOD, SEAM, Rig

ELEVATION = np.deg2rad(np.linspace(-30.67, 10.67, 32))
"""Of the lasers above the horizon, radians."""
FARTHEST = 105.0
"""Metres."""
RANGE_NOISE = 0.018
"""Standard deviation, metres."""
SPURIOUS = 0.0004
"""Share of pulses that come back from nothing; more of them in rain."""


@dataclass(frozen=True)
class LidarSweep:
    """One revolution. Points in the frame of the sensor at its end: x right, y forward, z up."""

    coord: Float[np.ndarray, "point 3"]
    intensity: Float[np.ndarray, " point"]
    """0..255, whole numbers."""
    ring: Int[np.ndarray, " point"]
    """Number of the laser, 0 = the lowest."""
    label: Int[np.ndarray, " point"]
    """Class in lidarseg."""
    actor: Int[np.ndarray, " point"]
    """Number of the actor, -1 = none."""


class Lidar:
    """The sensor on its vehicle in a street."""

    def __init__(self, caster: StreetCaster, rig: Rig, config: StreetConfig) -> None:
        self._caster, self._config, self._rig = caster, config, rig
        self._ego = caster.street.ego
        self._lasers: LaserTable = tabulate_lasers(caster.materials)
        column = np.arange(config.columns)
        azimuth = SEAM - 2 * np.pi * (column + 0.5) / config.columns
        flat = np.stack([-np.sin(azimuth), np.cos(azimuth), 0 * azimuth], axis=1)
        up = np.array([0.0, 0.0, 1.0])
        self._direction = (
            np.cos(ELEVATION)[None, :, None] * flat[:, None] + np.sin(ELEVATION)[None, :, None] * up
        )
        self._before_end = PERIOD * (1.0 - (column + 0.5) / config.columns)
        pose = rig.lidar_to_ego
        body = Raycaster(rig.body.vertices, rig.body.faces)
        rays = self._direction.reshape(-1, 3) @ pose[:3, :3].T
        self._own, face = body.cast(np.broadcast_to(pose[:3, 3], rays.shape), rays)
        normal = body.face_normals()[np.maximum(face, 0)]
        self._own_cosine = np.abs((normal * rays).sum(axis=1))

    def pose(self, time: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 4 4"]:
        """From the frame of the sensor to the world."""
        return self._ego.matrices(time) @ self._rig.lidar_to_ego

    def seen_at(self, end: float, point: Float[np.ndarray, "3"]) -> float:
        """When the revolution that ends at `end` passes a point of the world."""
        x, y, _ = np.linalg.inv(self.pose(np.array(end - PERIOD / 2)))[:3] @ np.append(point, 1.0)
        passed = ((SEAM - np.arctan2(-x, y)) % (2 * np.pi)) / (2 * np.pi)
        return end - PERIOD * (1.0 - float(passed))

    def sweep(self, rng: np.random.Generator, end: float) -> LidarSweep:
        """The revolution that ends at a time, seconds since the first key frame."""
        poses = self.pose(end - self._before_end)
        direction = np.einsum("cij,crj->cri", poses[:, :3, :3], self._direction).reshape(-1, 3)
        origin = np.repeat(poses[:, :3, 3], len(ELEVATION), axis=0)
        rays = Rays(origin, direction, np.repeat(end - self._before_end, len(ELEVATION)))
        hits = self._caster.cast(rays, self._candidates(end))
        own = self._own < hits.distance
        distance = np.where(own, self._own, hits.distance)
        label = np.where(hits.part >= 0, self._caster.label[hits.part], LABELS["noise"])
        label[own] = LABELS["vehicle.ego"]
        actor = np.where(own, -1, hits.actor)
        measured, intensity, kept, noise = self._measure(rng, distance, hits, own, direction)
        label[noise], actor[noise] = LABELS["noise"], -1
        ring = np.tile(np.arange(len(ELEVATION)), len(poses))
        if self._config.compensated:
            world = origin + direction * np.where(kept, measured, 0.0)[:, None]
            back = np.linalg.inv(self.pose(np.array(end)))
            coord = world @ back[:3, :3].T + back[:3, 3]
            rigid = self._direction.reshape(-1, 3) * np.where(own, measured, 0.0)[:, None]
            coord[own] = rigid[own]
        else:
            coord = self._direction.reshape(-1, 3) * np.where(kept, measured, 0.0)[:, None]
        return LidarSweep(
            coord[kept].astype(np.float32),
            intensity[kept].astype(np.float32),
            ring[kept],
            label[kept],
            actor[kept],
        )

    def _measure(
        self,
        rng: np.random.Generator,
        distance: Float[np.ndarray, " ray"],
        hits: Hits,
        own: np.ndarray,
        direction: Float[np.ndarray, "ray 3"],
    ) -> tuple[Float[np.ndarray, " ray"], Float[np.ndarray, " ray"], np.ndarray, np.ndarray]:
        """Range, intensity, what is kept, what is wrong."""
        cosine = np.abs((hits.normal * direction).sum(axis=1))
        cosine[own] = self._own_cosine[own]
        reflectivity = np.where(own, 0.12, self._lasers.reflectivity[hits.part])
        hole = np.where(own, 0.3, self._lasers.hole[hits.part])
        near = np.minimum(distance, 300.0)
        retro = reflectivity > 1.0
        back = np.where(retro, 0.35 + 0.65 * cosine, 0.2 + 0.8 * cosine) * reflectivity
        wet = self._caster.street.light.wet
        fog = np.exp(-near * (0.012 if wet else 0.002))
        intensity = np.where(retro, 60.0 * back, 150.0 * back * (0.5 + 0.5 * np.exp(-near / 60.0))) * fog
        there = distance < FARTHEST
        if not self._config.noise:
            return distance, np.clip(np.round(intensity), 0, 255), there, np.zeros(len(distance), bool)
        draw, error, glitter, where = rng.random((4, len(distance)))
        strength = back * fog / (near / 40.0) ** 2
        answers = (1.0 - np.exp(-6.0 * strength)) * 0.985 * (1.0 - hole * (1.0 - 0.5 * cosine))
        error = _normal(error)
        measured = near + (RANGE_NOISE + 0.0002 * near) * error
        intensity = intensity * (0.85 + 0.3 * glitter)
        noise = where < SPURIOUS * (6.0 if wet else 1.0)
        spot = 0.8 + (np.minimum(near, 30.0) - 0.8) * draw
        measured = np.where(noise & (spot > 0.8), spot, measured)
        intensity = np.where(noise, 1.0 + 4.0 * glitter, intensity)
        kept = (there & (draw < answers)) | noise
        return np.maximum(measured, 0.05), np.clip(np.round(intensity), 0, 255), kept, noise

    def _candidates(self, end: float) -> Candidates:
        """The columns between the sides of a box, by the middle of the revolution and some room."""
        inverse = np.linalg.inv(self.pose(np.array([end - PERIOD, end - PERIOD / 2, end])))
        n_columns, n_rings = self._config.columns, len(ELEVATION)

        def choose(corners: Float[np.ndarray, "8 3"]) -> Int[np.ndarray, " ray"]:
            local = np.einsum("pij,cj->pci", inverse[:, :3, :3], corners) + inverse[:, None, :3, 3]
            local = local.reshape(-1, 3)
            flat = np.hypot(local[:, 0], local[:, 1])
            if flat.min() > FARTHEST + 1.0:
                return np.zeros(0, np.int64)
            column = ((SEAM - np.arctan2(-local[:, 0], local[:, 1])) % (2 * np.pi)) / (2 * np.pi) * n_columns
            middle = np.median(column)
            away = (column - middle + n_columns / 2) % n_columns - n_columns / 2
            near = flat.min() < 4.0 or away.max() - away.min() > 0.45 * n_columns
            if near:
                return np.arange(n_columns * n_rings)
            first, last = int(np.floor(middle + away.min())) - 2, int(np.ceil(middle + away.max())) + 2
            low, high = _slopes(local)
            rings = np.flatnonzero((low < ELEVATION) & (high > ELEVATION))
            if len(rings) == 0:
                return np.zeros(0, np.int64)
            columns = np.arange(first, last + 1) % n_columns
            return (columns[:, None] * n_rings + rings).reshape(-1)

        return choose


def _slopes(corners: Float[np.ndarray, "corner 3"]) -> tuple[float, float]:
    """Bounds of the elevation of everything between the corners, radians."""
    middle = corners[:, :2].mean(axis=0)
    reach = float(np.linalg.norm(corners[:, :2] - middle, axis=1).max())
    near, far = max(float(np.linalg.norm(middle)) - reach, 0.1), float(np.linalg.norm(middle)) + reach
    low, high = float(corners[:, 2].min()), float(corners[:, 2].max())
    return float(np.arctan2(low, near if low < 0 else far)), float(
        np.arctan2(high, near if high > 0 else far)
    )


def _normal(uniform: Float[np.ndarray, " ray"]) -> Float[np.ndarray, " ray"]:
    """Normally distributed numbers of uniform ones."""
    from scipy.special import ndtri

    return ndtri(np.clip(uniform, 1e-6, 1.0 - 1e-6))
