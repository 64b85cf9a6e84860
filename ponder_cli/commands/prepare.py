"""`ponder prepare KIND PATH`: raw recordings, data sets or generated rooms -> prepared scenes.

Each kind of data set has a subcommand, whose options are the fields of its settings.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ponder_cli.options import JsonOption, SetOption

if TYPE_CHECKING:
    from ponder_cli.layers import Override
    from ponderv2.datasets.settings import DatasetSettings
    from ponderv2.workflows.image_features import FeatureResult
    from ponderv2.workflows.prepare_report import DriveOutcome, SceneOutcome

DRIVE_COLUMNS = ("drive", "key frames", "cameras confirmed", "points in boxes agree %", "suspicion")
MOST_LINES = 60
"""Scenes in the table; beyond that, failures only."""


class KindCommand(TyperCommand):
    """Prepares one kind of data set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer, but reports an option that belongs to another data set. Raises PresetError."""
        from ponder_cli.dataset_options import flags_of
        from ponderv2.datasets.kinds import DATASETS
        from ponderv2.errors import PresetError

        try:
            return super().parse_args(ctx, args)
        except Exception as problem:
            flag = getattr(problem, "option_name", None)  # of click's NoSuchOption, which Typer may vendor
            if any(flag in flags_of(settings) for settings in DATASETS.values()):
                raise PresetError(
                    f"{flag} does not apply to '{self.name}'", fix=f"leave {flag} out"
                ) from problem
            raise


class KindGroup(TyperGroup):
    """One subcommand per entry of `DATASETS`; the name of a preset or YAML file stands for its kind."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The kinds of data sets."""
        from ponderv2.datasets.kinds import DATASETS

        return sorted(DATASETS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of a kind or preset. Raises PresetError with the closest name for any other word."""
        from ponder_cli.presets import load_preset
        from ponderv2.datasets.kinds import DATASETS
        from ponderv2.workflows.config import PrepareConfig

        if cmd_name in DATASETS:
            return command_of(cmd_name, DATASETS[cmd_name])
        return command_of(cmd_name, type(load_preset("prepare", cmd_name, None, PrepareConfig).source))


prepare_app = typer.Typer(
    name="prepare",
    cls=KindGroup,
    no_args_is_help=True,
    subcommand_metavar="KIND|FILE [PATH]",
    help="Prepare scenes: ponder prepare rgbd PATH, ponder prepare synthetic --rooms 40, or a YAML file.\n\n"
    "Continues where it was interrupted, and checks at the end that frames, depths and poses, or LiDAR, "
    "cameras and boxes agree.\n\n"
    "Every kind takes --out, --check, --strict, --workers, --scheduler, --set and --json; its own options "
    "are listed by ponder prepare KIND --help.",
)


@prepare_app.callback()
def _prepare_group() -> None:
    """Makes Typer keep the group whatever the number of its commands."""


def command_of(preset: str, settings: type[DatasetSettings]) -> Any:
    """The subcommand of one kind of data set.

    Args:
        preset: Shipped preset or YAML file that the options change; the name of the subcommand.
        settings: Of the data set; its fields are the options, their docstrings the help.
    """
    from ponder_cli.dataset_options import parameters_of

    def call(**values: Any) -> None:
        _prepare(preset, settings, values)

    parameters = [*parameters_of(settings), *inspect.signature(_common, eval_str=True).parameters.values()]
    vars(call)["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__doc__ = settings.__doc__
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(preset, cls=KindCommand)(call)
    command = typer.main.get_command(single)
    command.name = preset
    return command


def _common(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the prepared scenes.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only check the scenes that are already prepared, or drives where they are."
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any scene cannot be prepared.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Number of processes; by default one per core.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="A cluster: dask://HOST:8786 or ray://HOST:10001."
        ),
    ] = None,
    image_features: Annotated[
        str | None,
        typer.Option(
            "--image-features",
            metavar="MODEL",
            help="Also compute features of all images, for pre-training: efficientnet_lite0, timm:NAME, "
            "hf:ORG/NAME or a folder. With --check of scenes that are there already.",
        ),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = None,
) -> None:
    """The options that every kind of data set has."""


def _prepare(preset: str, settings: type[DatasetSettings], values: dict[str, Any]) -> None:
    from ponder_cli import console
    from ponder_cli.dataset_options import overrides_of
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import PrepareConfig

    options: tuple[Override, ...] = (
        *overrides_of(settings, values),
        *option("--workers", "workers", values["workers"]),
        *option("--scheduler", "scheduler", values["scheduler"]),
        *option("--out", "out", values["out"]),
        *option("--image-features", "image_features.model", values["image_features"]),
    )
    config = load_preset("prepare", preset, values["set_"], PrepareConfig, options)

    from ponderv2.workflows import prepare as workflow
    from ponderv2.workflows.prepare_report import REPORT_FILE

    report = ConsoleReporter()
    if values["check"]:
        result = workflow.check(config, report)
    else:
        result = workflow.run(config, report, strict=values["strict"])
    columns = ("scene", "status", "frames", "points", "error cm", "agree %", "suspicion")
    shown = _rows_shown(result.scenes)
    console.table(columns, [_row(scene) for scene in shown])
    if len(shown) < len(result.scenes):
        console.say(f"{len(result.scenes) - len(shown)} more scenes are in {REPORT_FILE}")
    if result.drives:
        drives = [one for one in result.drives if one.suspect or len(result.drives) <= MOST_LINES]
        console.table(DRIVE_COLUMNS, [_drive_row(one) for one in drives[:MOST_LINES]])
    rows = [(one.status, one.scenes, one.reason, one.example) for one in result.summary]
    console.table(("status", "scenes", "reason", "for instance"), rows)
    console.say(
        f"{result.n_prepared} prepared, {result.n_skipped} skipped, {result.n_failed} failed, "
        f"{result.n_suspect} suspect, in {result.out}"
    )
    if result.image_features is not None:
        console.say(_features(result.image_features))
    console.write_json(result, values["json"])
    with_frames = any(scene.n_frames or scene.status == "skipped" for scene in result.scenes)
    console.next_command(*config.source.next_command(with_frames), "--data", result.scenes_in or config.out)


def _features(found: FeatureResult) -> str:
    rate = f", {found.images_per_second:.1f} images/s" if found.n_computed else ""
    return (
        f"image features of {found.model}: {found.n_computed} of {found.n_images} images computed{rate}, "
        f"{found.n_channels} of {found.network_channels} channels with {found.explained_share:.0%} of the "
        f"variance, {found.bytes_per_image / 1000:.0f} kB an image, in {', '.join(map(str, found.folders))}"
    )


def _rows_shown(scenes: tuple[SceneOutcome, ...]) -> list[SceneOutcome]:
    """All scenes, or of very many those that went wrong, at most as many as one reads."""
    if len(scenes) <= MOST_LINES:
        return list(scenes)
    wrong = [one for one in scenes if one.status == "failed" or (one.check is not None and one.check.suspect)]
    return wrong[:MOST_LINES]


def _row(scene: SceneOutcome) -> tuple[object, ...]:
    """One line of the table: the reprojection error says how well depth, poses and intrinsics agree."""
    found = scene.check
    error = None if found is None or found.median_error is None else 100.0 * found.median_error
    share = None if found is None or found.inlier_share is None else 100.0 * found.inlier_share
    cause = found.likely_cause if found is not None and found.suspect else ""
    if found is not None and found.lidar is not None and found.lidar.boxes is not None:
        share = None if found.lidar.boxes.share is None else 100.0 * found.lidar.boxes.share
    words = cause or (scene.why[0] if scene.status == "failed" else "")
    return (f"{scene.split}/{scene.name}", scene.status, scene.n_frames, scene.n_points, error, share, words)


def _drive_row(drive: DriveOutcome) -> tuple[object, ...]:
    """One line of the table of drives."""
    found = drive.found
    if found is None:
        return (drive.name, len(drive.key_frames), "-", None, drive.why)
    sound = f"{sum(one.sound for one in found.cameras)} of {len(found.cameras)}"
    share = None if found.boxes is None or found.boxes.share is None else 100.0 * found.boxes.share
    return (drive.name, found.key_frames, sound, share, found.cause)
