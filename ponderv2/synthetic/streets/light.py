"""Sun, sky, fog and lamps of a street: the weather and the time of day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderv2.synthetic.materials import value_noise

WEATHER = {"clear": 0.34, "low sun": 0.14, "cloudy": 0.24, "rain": 0.12, "dusk": 0.06, "night": 0.1}
"""Names and how frequent they are."""


@dataclass(frozen=True)
class Light:
    """What lights the street. Colours are relative to white in full light."""

    name: str
    sun: Float[np.ndarray, "3"]
    """Towards the sun, or straight up where it is hidden; unit length."""
    sun_color: Float[np.ndarray, "3"]
    ambient: Float[np.ndarray, "3"]
    zenith: Float[np.ndarray, "3"]
    horizon: Float[np.ndarray, "3"]
    clouds: float
    """Share of the sky that they cover."""
    fog: float
    """Share of the light that is lost on a metre."""
    soft: float
    """Angle that shadows are blurred over, radians: a hidden sun shines from everywhere."""
    cloud_phase: float

    @property
    def wet(self) -> bool:
        """Whether it rains."""
        return self.name == "rain"

    @property
    def dark(self) -> bool:
        """Whether lamps are on."""
        return self.name in ("night", "dusk")

    def sky(self, directions: Float[np.ndarray, "ray 3"]) -> Float[np.ndarray, "ray 3"]:
        """Colour of the sky in unit directions."""
        height = np.clip(directions[:, 2:3], 0.0, 1.0)
        color = self.horizon + (self.zenith - self.horizon) * height**0.55
        if self.clouds > 0:
            flat = directions[:, :2] / (np.abs(directions[:, 2:3]) + 0.18)
            at = np.column_stack([flat * 1.3 + self.cloud_phase, np.zeros(len(flat))]).astype(np.float32)
            thick = 0.6 * value_noise(at) + 0.3 * value_noise(at * 2.7) + 0.1 * value_noise(at * 6.1)
            share = np.clip((thick - 1.0 + self.clouds) * 4.0, 0.0, 1.0)[:, None] * np.clip(
                height * 6.0, 0.0, 1.0
            )
            color = color + share * (np.array([0.85, 0.86, 0.88]) * self.horizon.mean() * 1.1 - color)
        glare = np.clip((directions @ self.sun)[:, None], 0.0, 1.0) ** 250
        return color + glare * self.sun_color * (1.5 if self.soft < 0.2 else 0.0)


def draw_light(rng: np.random.Generator, conditions: str) -> Light:
    """Weather and time of day."""
    name = "clear" if conditions == "clear" else str(rng.choice(list(WEATHER), p=list(WEATHER.values())))
    high = {"clear": (35.0, 70.0), "low sun": (8.0, 22.0)}.get(name, (80.0, 90.0))
    up, around = np.deg2rad(rng.uniform(*high)), rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    blue = np.array([0.3, 0.5, 0.85]) * rng.uniform(0.85, 1.1)
    tables: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, float, float]] = {
        "clear": (
            np.array([1.0, 0.96, 0.88]),
            np.array([0.42, 0.45, 0.52]),
            blue,
            np.array([0.75, 0.83, 0.92]),
            rng.uniform(0.0, 0.5),
            0.0006,
            0.01,
        ),
        "low sun": (
            np.array([1.0, 0.78, 0.5]),
            np.array([0.44, 0.45, 0.5]),
            blue * 0.8,
            np.array([0.95, 0.8, 0.62]),
            rng.uniform(0.0, 0.4),
            0.001,
            0.01,
        ),
        "cloudy": (
            np.array([0.4, 0.4, 0.41]),
            np.array([0.38, 0.39, 0.41]),
            np.array([0.68, 0.71, 0.76]),
            np.array([0.84, 0.85, 0.87]),
            rng.uniform(0.6, 1.0),
            0.0012,
            0.6,
        ),
        "rain": (
            np.array([0.3, 0.3, 0.31]),
            np.array([0.3, 0.31, 0.33]),
            np.array([0.5, 0.52, 0.56]),
            np.array([0.62, 0.64, 0.67]),
            1.0,
            0.006,
            0.6,
        ),
        "dusk": (
            np.array([0.1, 0.1, 0.12]),
            np.array([0.14, 0.15, 0.2]),
            np.array([0.1, 0.14, 0.3]),
            np.array([0.45, 0.32, 0.3]),
            rng.uniform(0.0, 0.6),
            0.001,
            0.6,
        ),
        "night": (
            np.array([0.02, 0.02, 0.025]),
            np.array([0.035, 0.037, 0.05]),
            np.array([0.01, 0.012, 0.025]),
            np.array([0.05, 0.045, 0.05]),
            0.0,
            0.001,
            0.6,
        ),
    }
    color, ambient, zenith, horizon, clouds, fog, soft = tables[name]
    return Light(
        name, sun, color, ambient, zenith, horizon, float(clouds), fog, soft, float(rng.uniform(0, 40))
    )
