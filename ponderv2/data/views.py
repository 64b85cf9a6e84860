"""The images of a scene: decoding, and the choice of the views and pixels of one training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponderv2.data.config import ImageInputConfig, ViewSamplingConfig
from ponderv2.data.crops import Region
from ponderv2.data.image_augmentation import InputImage, input_image
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera, project, unproject
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.lru_cache import LruCache
from ponderv2.scenes.batch import ImageBatch, PixelBatch
from ponderv2.scenes.scene import Frame, Scene, evenly_spread


@dataclass(frozen=True)
class FramePixels:
    """The images of one frame, and its usable pixels."""

    color: UInt8[Tensor, "row column 3"] | None
    """None: the frame has no colour image."""
    depth: Float[Tensor, "row column"]
    """Metres; 0 = no measurement, everywhere where the frame has no depth image."""
    label: Int[Tensor, "row column"] | None
    """Class, -1 = unlabelled."""
    valid: Int[Tensor, " pixel"]
    """Row-major indices of the pixels with a depth, which hidden ones lack; of a frame without a depth image
    those that the mask does not hide."""
    measured: bool = True
    """Whether the frame has a depth image."""
    image_feature: Float[Tensor, "channel cell_row cell_column"] | None = None
    """Of the colour image, on a coarser grid, in half precision; None: there is none, or it was not read."""

    @property
    def n_bytes(self) -> int:
        """Memory that the images take."""
        images = (self.color, self.depth, self.valid, self.label, self.image_feature)
        return sum(one.untyped_storage().nbytes() for one in images if one is not None)


def decode(frame: Frame, with_features: bool = False) -> FramePixels:
    """Read the images of a frame. Depths that are not finite or not positive become 0.

    `with_features`: also the image features, where the frame has any.

    Raises:
        SceneError: a file is missing or damaged, or the images differ in size.
    """
    color = frame.read_color() if frame.has_color else None
    depth = torch.zeros(frame.camera.height, frame.camera.width)
    if frame.has_depth:
        depth = frame.read_depth().float()
    feature = None
    if with_features and frame.has_image_features:
        feature = frame.read_image_features().half()
    label = frame.read_semantic().to(torch.int16) if frame.semantic_path is not None else None
    sizes = {tuple(one.shape[:2]) for one in (color, depth, label) if one is not None}
    if len(sizes) > 1:
        raise SceneError(
            f"the images of frame {frame.id} ({frame.key}) differ in size: {sorted(sizes)}",
            fix="prepare the capture again: prepared images are registered and of one size",
        )
    if not frame.has_depth:
        usable = torch.nonzero(frame.read_visible().flatten())[:, 0].to(torch.int32)
        return FramePixels(color, depth, label, usable, False, feature)
    depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.zeros_like(depth))
    valid = torch.nonzero(depth.flatten())[:, 0].to(torch.int32)
    return FramePixels(color, depth, label, valid, True, feature)


def decode_color(frame: Frame, with_features: bool = False) -> FramePixels:
    """The colour image of a frame alone, with image features where they are wanted: no pixel is usable."""
    color = frame.read_color() if frame.has_color else None
    feature = None
    if with_features and frame.has_image_features:
        feature = frame.read_image_features().half()
    nothing = torch.zeros(0, dtype=torch.int32)
    depth = torch.zeros(()).expand(frame.camera.height, frame.camera.width)  # takes no memory
    return FramePixels(color, depth, None, nothing, False, feature)


class FrameDecoder:
    """Decodes images and keeps the most recently used ones: decoding is most of the cost of a sample."""

    def __init__(self, megabytes: float, with_features: bool = False, colors_only: bool = False) -> None:
        """`with_features`: image features too, where a frame has any. `colors_only`: as `decode_color`."""
        self.memory: LruCache[FramePixels] = LruCache(megabytes)
        self.with_features, self.colors_only = with_features, colors_only

    def __call__(self, frame: Frame) -> FramePixels:
        """The decoded frame, from memory if it is there."""
        return self.memory.get(frame.key, lambda: self._decode(frame))

    def _decode(self, frame: Frame) -> FramePixels:
        if self.colors_only:
            return decode_color(frame, self.with_features)
        return decode(frame, with_features=True) if self.with_features else decode(frame)

    def color(self, frame: Frame) -> UInt8[Tensor, "row column 3"]:
        """The colour image of a frame that has one."""
        color = self(frame).color
        assert color is not None
        return color


Decode = Callable[[Frame], FramePixels]
PROBES = 256
"""Points of a region that decide which frames may show it."""


@dataclass(frozen=True)
class SampledPixels:
    """Pixels of one scene with their targets, view after view."""

    frames: tuple[Frame, ...]
    """One per view; a frame may be there several times."""
    pixels: PixelBatch
    """With the cameras of the frames as they were read."""


def sample_pixels(
    scene: Scene,
    frames: Sequence[Frame],
    config: ViewSamplingConfig,
    decode: Decode,
    generator: torch.Generator,
    region: Region | None = None,
) -> SampledPixels:
    """`n_views` views of `n_pixels` pixels each, all usable and, with a region, showing it.

    Views are drawn without replacement, then with; so are the pixels of a view. Views without usable pixels
    are replaced by others.

    Raises:
        SceneError: no frame of the scene has a usable pixel.
    """
    found = _usable_views(scene, frames, config, decode, generator, region)
    views = [found[i % len(found)] for i in range(config.n_views)]
    numbers = [draw_pixels(valid, config.n_pixels, generator) for _, valid in views]
    frames = tuple(frame for frame, _ in views)
    return SampledPixels(frames, _pixel_batch(frames, [decode(frame) for frame in frames], numbers))


def draw_pixels(
    valid: Int[Tensor, " pixel"], n_pixels: int, generator: torch.Generator
) -> Int[Tensor, " ray"]:
    """`n_pixels` of the valid pixels: without replacement and, where they do not suffice, the rest with."""
    n_valid = len(valid)
    if n_valid <= n_pixels:
        again = torch.randint(n_valid, (n_pixels - n_valid,), generator=generator)
        order = torch.randperm(n_valid, generator=generator)
        return valid[torch.cat([order, again])]
    if n_valid < 8 * n_pixels:
        return valid[torch.randperm(n_valid, generator=generator)[:n_pixels]]
    # A permutation of a whole image costs milliseconds, and among that many pixels few are drawn twice.
    several = torch.unique(torch.randint(n_valid, (2 * n_pixels,), generator=generator))
    if len(several) < n_pixels:
        several = torch.arange(n_valid)
    return valid[several[torch.randperm(len(several), generator=generator)[:n_pixels]]]


def _usable_pixels(
    frame: Frame,
    decoded: FramePixels,
    config: ViewSamplingConfig,
    generator: torch.Generator,
    region: Region | None,
) -> Int[Tensor, " pixel"]:
    """Row-major indices of usable pixels that show the region; not all where there are plenty.

    What a pixel without a depth shows is not known: with a region, frames without a depth image have none.
    """
    valid = decoded.valid.long()
    if not decoded.measured:
        return valid if region is None else valid[:0]
    if config.max_depth is not None:
        valid = valid[decoded.depth.flatten()[valid] <= config.max_depth]
    if region is None:
        return valid
    # Unprojecting a whole image costs more than all the rest of a sample: a random part usually does.
    wanted = max(config.n_pixels, config.min_valid_pixels)
    if len(valid) > 16 * wanted:
        some = draw_pixels(valid, 16 * wanted, generator)
        inside = some[region.contains(surface_points(frame, decoded, some))]
        if len(inside) >= wanted:
            return inside
    return valid[region.contains(surface_points(frame, decoded, valid))]


def surface_points(
    frame: Frame, decoded: FramePixels, numbers: Int[Tensor, " pixel"]
) -> Float[Tensor, "pixel 3"]:
    """World positions of what pixels (row-major indices) show; the world must be in metres."""
    pixel = pixel_positions(numbers, decoded.depth.shape[1])
    return shown_points(pixel, decoded.depth.flatten()[numbers], frame.camera)


def shown_points(
    pixel: Float[Tensor, "pixel 2"], depth: Float[Tensor, " pixel"], camera: Camera
) -> Float[Tensor, "pixel 3"]:
    """World positions of what pixels (column, row) show at a depth; the world must be in metres."""
    in_camera = unproject(pixel.double(), depth.double(), camera.intrinsics.double())
    return transform_points(torch.linalg.inv(camera.world_to_camera.double()), in_camera).float()


def pixel_positions(numbers: Int[Tensor, " pixel"], width: int) -> Float[Tensor, "pixel 2"]:
    """Column and row of row-major pixel indices."""
    return torch.stack([numbers % width, numbers // width], dim=1).float()


def frames_seeing(frames: Sequence[Frame], points: Float[Tensor, "point 3"]) -> Bool[Tensor, " frame"]:
    """Which frames have any of the points in their image, hidden or not."""
    cameras = [frame.camera for frame in frames]
    to_camera = torch.stack([camera.world_to_camera for camera in cameras]).float()
    intrinsics = torch.stack([camera.intrinsics for camera in cameras]).float()
    size = torch.tensor([[camera.width, camera.height] for camera in cameras])[:, None]
    in_camera = transform_points(to_camera[:, None], points[None].expand(len(frames), -1, -1))
    pixel, depth = project(in_camera, intrinsics[:, None])
    inside = ((pixel > -0.5) & (pixel < size - 0.5)).all(dim=-1)
    return (inside & (depth > 0)).any(dim=1)


def _pixel_batch(
    frames: Sequence[Frame], decoded: Sequence[FramePixels], numbers: Sequence[Int[Tensor, " pixel"]]
) -> PixelBatch:
    """Pixels of each view by their row-major indices, as a batch of one scene."""
    counts = [len(one) for one in numbers]
    picked = list(zip(decoded, numbers, strict=True))
    colors = [
        torch.zeros(len(some), 3) if one.color is None else one.color.flatten(0, 1)[some].float() / 255.0
        for one, some in picked
    ]
    labels = [
        torch.full((len(some),), -1) if one.label is None else one.label.flatten()[some].long()
        for one, some in picked
    ]
    return PixelBatch(
        **camera_fields(frames),
        view=torch.repeat_interleave(torch.tensor(counts)),
        pixel=torch.cat([pixel_positions(some, one.depth.shape[1]) for one, some in picked]),
        color=torch.cat(colors),
        depth=torch.cat([one.depth.flatten()[some] for one, some in picked]),
        label=torch.cat(labels),
        colored=torch.cat([torch.full((len(some),), one.color is not None) for one, some in picked]),
    )


def camera_fields(frames: Sequence[Frame]) -> dict[str, Tensor]:
    """The fields that pixels and images of one scene have of their cameras."""
    return {
        "intrinsics": torch.stack([frame.camera.intrinsics for frame in frames]).float(),
        "world_to_camera": torch.stack([frame.camera.world_to_camera for frame in frames]).float(),
        "view_scene": torch.zeros(len(frames), dtype=torch.long),
    }


def with_cameras(pixels: PixelBatch, frames: Sequence[Frame]) -> PixelBatch:
    """The pixels with the cameras of `frames`: the same views after augmentation."""
    if len(frames) != len(pixels.view_scene):
        raise ValueError(f"expected {len(pixels.view_scene)} views, got {len(frames)}")
    return replace(pixels, **camera_fields(frames))


def _usable_views(
    scene: Scene,
    frames: Sequence[Frame],
    config: ViewSamplingConfig,
    decode: Decode,
    generator: torch.Generator,
    region: Region | None,
) -> list[tuple[Frame, Int[Tensor, " pixel"]]]:
    """Up to `n_views` frames with their usable pixels, at least one."""
    good, poor = [], []
    for number in _frame_order(scene, frames, generator, region):
        frame = frames[number]
        valid = _usable_pixels(frame, decode(frame), config, generator, region)
        if len(valid) >= config.min_valid_pixels:
            good.append((frame, valid))
        elif len(valid):
            poor.append((frame, valid))
        if len(good) == config.n_views:
            return good
    found = (good + poor)[: config.n_views]
    if not found:
        raise SceneError(
            f"no frame of scene '{scene.name}' has a usable pixel with a depth",
            fix="prepare the capture again with its depth images, or remove the scene from the store",
        )
    return found


def _frame_order(
    scene: Scene, frames: Sequence[Frame], generator: torch.Generator, region: Region | None
) -> list[int]:
    """Random order of the frames, those that may show the region first."""
    if not frames:
        return []
    order = torch.randperm(len(frames), generator=generator)
    if region is None:
        return order.tolist()
    inside = scene.cloud.coord[region.contains(scene.cloud.coord)]
    probes = torch.cat([inside[:: max(1, len(inside) // PROBES)], region.centre[None].float()])
    seeing = frames_seeing(frames, probes)[order]
    return torch.cat([order[seeing], order[~seeing]]).tolist()


def sample_images(
    frames: Sequence[Frame], config: ImageInputConfig | None, generator: torch.Generator | None = None
) -> tuple[Frame, ...]:
    """The frames whose images an encoder receives: random ones, without a generator evenly spread ones.

    None where nothing is configured. Where there are too few they are used several times.

    Raises:
        SceneError: no frame has a colour image.
    """
    if config is None:
        return ()
    colored = tuple(frame for frame in frames if frame.has_color)
    if not colored:
        raise SceneError(
            "the scene has no colour images",
            fix="add images; encoders of points do without: --set data.images=null",
        )
    if generator is not None:
        colored = tuple(colored[i] for i in torch.randperm(len(colored), generator=generator).tolist())
        colored = colored[: config.n_views]
    chosen = evenly_spread(colored, config.n_views)
    return tuple(chosen[i % len(chosen)] for i in range(config.n_views))


def image_batch(
    frames: Sequence[Frame],
    config: ImageInputConfig | None,
    decode: Decode,
    generator: torch.Generator | None = None,
    depths: Sequence[Float[Tensor, "_ _"]] | None = None,
) -> ImageBatch | None:
    """The images of frames of one scene, resized and, with a generator, augmented; None without settings.

    `depths`: of the images, of any size, where depth images of frames do not say them.
    """
    if config is None:
        return None
    made: list[InputImage] = []
    for number, frame in enumerate(frames):
        decoded = decode(frame)
        assert decoded.color is not None  # `sample_images` chose it
        depth = None if not config.depth else decoded.depth if depths is None else depths[number]
        made.append(input_image(decoded.color, frame.camera.intrinsics, depth, config, generator))
    cameras = camera_fields(frames) | {"intrinsics": torch.stack([one.intrinsics for one in made]).float()}
    depths = [one.depth for one in made if one.depth is not None]
    return ImageBatch(
        image=torch.stack([one.color for one in made]),
        **cameras,
        depth=torch.stack(depths) if depths else None,
    )
