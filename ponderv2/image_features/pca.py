"""Principal components of vectors that come in blocks, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ponderv2.errors import PresetError, SceneError
from ponderv2.io.files import write_bytes


@dataclass(frozen=True)
class Pca:
    """A linear map onto the directions of the largest variance."""

    mean: Float64[Tensor, " channel"]
    components: Float64[Tensor, "component channel"]
    """Orthogonal rows of length 1; the largest entry of each is positive, so that they are unique."""
    explained_variance: Float64[Tensor, " component"]
    """Of the vectors along each, with N - 1 in the denominator; falling."""
    total_variance: float
    """Of all channels together."""
    n_vectors: int

    @property
    def explained_share(self) -> float:
        """Of the total variance, 0..1."""
        return float(self.explained_variance.sum()) / self.total_variance if self.total_variance else 0.0

    def projection(
        self, whiten: float
    ) -> tuple[Float64[Tensor, "component channel"], Float64[Tensor, " component"]]:
        """Matrix A and vector b of y = A x + b, each component divided by a power of its standard deviation.

        With 1 every component of y has variance 1; with 0 it keeps its own. Those without variance stay zero.
        """
        least = torch.finfo(torch.float64).eps * max(self.total_variance, 1e-300)
        scale = self.explained_variance.clamp(min=least).pow(-whiten / 2.0)
        matrix = self.components * torch.where(self.explained_variance > least, scale, 0.0)[:, None]
        return matrix, -(matrix @ self.mean)

    def write(self, path: Path) -> None:
        """To a safetensors file, whole or not at all. Raises OutputError."""
        from safetensors.torch import save

        totals = torch.tensor([self.total_variance, float(self.n_vectors)], dtype=torch.float64)
        arrays = {
            "mean": self.mean,
            "components": self.components,
            "explained_variance": self.explained_variance,
            "totals": totals,
        }
        write_bytes(path, save({name: one.cpu().contiguous() for name, one in arrays.items()}))

    @staticmethod
    def read(path: Path) -> Pca:
        """What `write` wrote. Raises SceneError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            stored = load_file(str(path))
            variance, n_vectors = stored["totals"].tolist()
            found = Pca(
                stored["mean"],
                stored["components"],
                stored["explained_variance"],
                variance,
                int(n_vectors),
            )
            right = found.components.shape == (len(found.explained_variance), len(found.mean))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise SceneError(
                f"{path} is damaged ({error})", fix=f"delete {path.parent} and compute the features again"
            ) from error
        if not right:
            raise SceneError(
                f"{path} is damaged: its arrays do not fit together", fix=f"delete {path.parent}"
            )
        return found


class PcaFit:
    """Sums over blocks of vectors; the result does not depend on how they are cut beyond the last bits.

    The sums are of differences to the first block's mean, so that large means cost no precision.
    """

    def __init__(self) -> None:
        self.n_vectors = 0
        self._origin: Tensor | None = None
        self._sum: Tensor | None = None
        self._products: Tensor | None = None

    def add(self, vectors: Float[Tensor, "vector channel"]) -> None:
        """More vectors. Those with a number that is not finite are left out."""
        vectors = vectors.double()
        vectors = vectors[torch.isfinite(vectors).all(dim=1)]
        if not len(vectors):
            return
        if self._origin is None or self._sum is None or self._products is None:
            self._origin = vectors.mean(dim=0)
            self._sum = torch.zeros_like(self._origin)
            self._products = torch.zeros(len(self._sum), len(self._sum)).to(self._origin)
        centred = vectors - self._origin
        self._sum += centred.sum(dim=0)
        self._products += centred.T @ centred
        self.n_vectors += len(vectors)

    def result(self, n_components: int) -> Pca:
        """The first components.

        Raises:
            PresetError: there are fewer channels or vectors than components.
        """
        if self._origin is None or self._sum is None or self._products is None or self.n_vectors < 2:
            raise PresetError("no image gave features to fit a PCA on", fix="--set data.image_features=null")
        most = min(len(self._origin), self.n_vectors)
        if n_components > most:
            raise PresetError(
                f"{n_components} channels were asked for, but the network gives {len(self._origin)} "
                f"in {self.n_vectors} cells",
                fix=f"--set data.image_features.n_channels={most}",
            )
        shift = self._sum / self.n_vectors
        covariance = (self._products - self.n_vectors * torch.outer(shift, shift)) / (self.n_vectors - 1)
        variance, directions = torch.linalg.eigh((covariance + covariance.T).cpu() / 2.0)
        components = directions.flip(1)[:, :n_components].T
        largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        return Pca(
            mean=(self._origin + shift).cpu(),
            components=components * torch.where(largest < 0, -1.0, 1.0),
            explained_variance=variance.flip(0)[:n_components].clamp(min=0.0).contiguous(),
            total_variance=float(variance.clamp(min=0.0).sum()),
            n_vectors=self.n_vectors,
        )
