"""Independent jobs on the cores of this machine or on a Dask or Ray cluster; results in completion order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from ponderv2.errors import ResourceError

Job = TypeVar("Job")
Result = TypeVar("Result")
CONNECT_SECONDS = 15
DIED = ("its worker process died twice", "out of memory? try --workers 1 or a coarser fusion.voxel_size")


def run_all(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    lost: Callable[[Job, tuple[str, str]], Result],
    n_workers: int | None,
    scheduler: str | None = None,
) -> Iterator[Result]:
    """Results of `work` for every job, in completion order.

    When a local worker dies, what is unfinished runs again, one job at a time; `lost` gives the result of a
    job that kills its worker twice. Raises ResourceError when the cluster cannot be used.
    """
    if scheduler is not None:
        with _cluster(scheduler):
            yield from _on_cluster(jobs, work, n_workers, scheduler)
    elif n_workers == 1:
        yield from (work(job) for job in jobs)
    else:
        yield from _on_this_machine(jobs, work, lost, n_workers or -1)


def in_threads(jobs: Sequence[Job], work: Callable[[Job], Result], n_workers: int | None) -> Iterator[Result]:
    """The same in threads, for work bound by disks and digests. In completion order."""
    from joblib import Parallel, delayed

    n_threads = min(n_workers or -1, max(len(jobs), 1))
    found: Any = Parallel(n_jobs=n_threads, backend="threading", return_as="generator_unordered")(
        delayed(work)(job) for job in jobs
    )
    yield from found


def check_scheduler(scheduler: str) -> None:
    """Raises ResourceError for what is not an address, or without its package; connects to nothing."""
    _cluster_kind(scheduler)


def _on_this_machine(
    jobs: Sequence[Job], work: Callable[[Job], Result], lost: Callable[..., Result], n_workers: int
) -> Iterator[Result]:
    left = dict(enumerate(jobs))
    try:
        for index, result in _in_processes(list(left.items()), work, n_workers):
            del left[index]
            yield result
    except BrokenProcessPool:
        for job in list(left.values()):
            yield _alone(job, work, lost)


def _alone(job: Job, work: Callable[[Job], Result], lost: Callable[..., Result]) -> Result:
    """Runs the job in its own process, twice if need be: the first crash may have been another job's."""
    for _ in range(2):
        try:
            return next(_in_processes([(0, job)], work, 2))[1]
        except BrokenProcessPool:
            continue
    return lost(job, DIED)


def _numbered(work: Callable[[Job], Result], index: int, job: Job) -> tuple[int, Result]:
    return index, work(job)


def _in_processes(
    jobs: Sequence[tuple[int, Job]], work: Callable[[Job], Result], n_workers: int
) -> Iterator[tuple[int, Result]]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=n_workers, backend="loky", return_as="generator_unordered")
    found: Any = parallel(delayed(_numbered)(work, index, job) for index, job in jobs)
    yield from found


def _on_cluster(
    jobs: Sequence[Job], work: Callable[[Job], Result], n_workers: int | None, scheduler: str
) -> Iterator[Result]:
    """Through joblib's backend of the cluster. Raises ResourceError when the cluster goes away."""
    from joblib import Parallel, delayed

    try:
        if _cluster_kind(scheduler) == "dask":
            stream: Any = Parallel(n_jobs=n_workers or -1, return_as="generator_unordered")
            yield from stream(delayed(work)(job) for job in jobs)
            return
        # Ray's backend gives no results before the last one: a few jobs per worker at a time.
        parallel = Parallel(n_jobs=n_workers or -1)
        n_at_once = 4 * max(_n_of_ray(), 1)
        for start in range(0, len(jobs), n_at_once):
            results: Any = parallel(delayed(work)(job) for job in jobs[start : start + n_at_once])
            yield from results
    except (TimeoutError, ConnectionError) as error:
        raise _unreachable(scheduler, error) from error
    except _died(scheduler) as error:
        raise ResourceError(
            f"a worker of {scheduler} died ({error})",
            fix="run the command again: finished scenes are not lost; see the logs of the cluster",
        ) from error


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    """A connection to the cluster, and its backend as joblib's."""
    from joblib import parallel_config

    if _cluster_kind(scheduler) == "dask":
        from distributed import Client  # pyright: ignore[reportMissingImports]

        address = scheduler.replace("dask://", "tcp://", 1)
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
            raise _unreachable(scheduler, error) from error
        with client, parallel_config(backend="dask", client=client):
            yield
        return
    import ray  # pyright: ignore[reportMissingImports]
    from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

    try:
        ray.init(address=scheduler, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
        raise _unreachable(scheduler, error) from error
    register_ray()
    try:
        with parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()


def _n_of_ray() -> int:
    import ray  # pyright: ignore[reportMissingImports]

    return int(ray.cluster_resources().get("CPU", 1))


def _cluster_kind(scheduler: str) -> str:
    """dask or ray. Raises ResourceError for other addresses and where the package is missing."""
    import importlib.util

    kind, separator, place = scheduler.partition("://")
    if kind not in ("dask", "ray") or not separator or ":" not in place:
        raise ResourceError(
            f"'{scheduler}' is not the address of a cluster",
            fix="--scheduler dask://HOST:8786 or --scheduler ray://HOST:10001",
        )
    package = "distributed" if kind == "dask" else "ray"
    if importlib.util.find_spec(package) is None:
        raise ResourceError(
            f"--scheduler {scheduler} needs the package '{package}', which is not installed",
            fix=f'pip install "ponder[{kind}]"',
        )
    return kind


def _died(scheduler: str) -> tuple[type[Exception], ...]:
    """Exceptions that a cluster raises for a worker that died."""
    if _cluster_kind(scheduler) == "dask":
        from distributed import KilledWorker  # pyright: ignore[reportMissingImports]
        from distributed.comm import CommClosedError  # pyright: ignore[reportMissingImports]

        return KilledWorker, CommClosedError
    from ray.exceptions import WorkerCrashedError  # pyright: ignore[reportMissingImports]

    return (WorkerCrashedError,)


def _unreachable(scheduler: str, error: Exception) -> ResourceError:
    reason = str(error).strip().splitlines()
    return ResourceError(
        f"no cluster answers at {scheduler}" + (f" ({reason[0]})" if reason else ""),
        fix="check that its scheduler and workers run and that the port is right, or leave --scheduler out",
    )
