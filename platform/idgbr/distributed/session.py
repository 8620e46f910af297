"""Joining a Ray cluster, or starting one on this machine that ends with the job."""

from __future__ import annotations

import atexit
import functools
import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil
import ray
from ray._private import ray_constants

import idgbr
from idgbr.config.tree import ResourcesConfig
from idgbr.errors import UserError

OBJECT_STORE_BYTES = 400 * 2**20
"""Object store of a local Ray. What travels is windows of a few hundred kB, so more would only cost memory."""

START_TRIES = 3
"""How often a local Ray is started: it gives up after 30 seconds, on a machine that may be busy for a moment only."""

_LONGEST_TEMPORARY = 36
"""Bytes of a path below which Ray's sockets still have valid names."""


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of every worker of a local Ray: where the package is, and how many threads libraries use.

    Freed memory stays with the process, up to 64 MB: otherwise glibc returns the arrays of every window to the system
    and gets them again page by page, which takes a tenth of the time of a map and a sixth of the time of reading
    windows. One malloc arena, because models run in threads there and arenas of threads keep no freed memory.

    A local Ray has no dashboard. Ray Train's watcher of each training would look for its address for 40 seconds, and
    hold up the end of the training by 12: with an address that nothing listens on it gives up at once. Nor is the loss
    of its one machine announced: the actor that each training starts to ask for that is left out.
    """
    count = str(threads)
    source_root = str(Path(idgbr.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH", "")
    return {
        "PYTHONPATH": os.pathsep.join(part for part in (source_root, inherited) if part),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "GDAL_NUM_THREADS": count,
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "RAY_API_SERVER_ADDRESS": "none://",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }


@contextmanager
def start_ray(resources: ResourcesConfig, trains: bool = False, loopback: bool = False) -> Iterator[None]:
    """Run the body inside a Ray cluster.

    A Ray this process is already connected to is used and left alone, and so is a running cluster
    (`resources.ray_address`, else `RAY_ADDRESS`, which `ray job submit` sets). Otherwise a Ray of
    `resources.logical_cpus` CPUs starts on this machine and ends with the body.

    Args:
        resources: Where Ray is, or what a local one declares.
        trains: The body trains, for which all its workers have to fit at once.
        loopback: The servers of a local Ray listen on the loopback address alone, not to every network.

    Raises:
        UserError: no cluster answers at the address, or this machine has too few GPUs or is too busy to start Ray.
    """
    if ray.is_initialized():
        quiet_ray_data()
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _quiet_driver()
    address = resources.ray_address or os.environ.get("RAY_ADDRESS", "")
    with _own_termination():
        if address:
            _join(address)
        else:
            with _loopback_alone() if loopback else nullcontext():
                _start_local(resources)
    try:
        if not address and resources.gpus_per_worker:
            _check_gpus(resources, trains)
        quiet_ray_data()
        yield
    finally:
        ray.shutdown()


def _quiet_driver() -> None:
    """Keep what Ray's C++ side and its Python side say to Ray's own developers out of a job's output.

    Such as that an actor with arguments in the object store may not restart, that no metrics agent answers, or that
    zero GPUs will mean something else in a later version. What concerns a job arrives as an exception.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextmanager
def _own_termination() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray's own handler aborts a driver that is not gone after 3 seconds."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _loopback_alone() -> Iterator[None]:
    """Ray takes the loopback address for the node's, as it does on macOS; an argument of 127.0.0.1 it replaces."""
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


def _join(address: str) -> None:
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except ConnectionError as error:
        raise UserError(
            f"resources.ray_address: no Ray cluster answers at {address!r} ({error}); start one with "
            "`ray start --head`, or leave the key (and RAY_ADDRESS) empty to run on this machine alone"
        ) from error


def _start_local(resources: ResourcesConfig) -> None:
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        # A local Ray asks for a token, and would write one to the home folder, readable by everybody: this one belongs
        # to this process. Ray sets RAY_AUTH_MODE=token itself; set from here it would come too late.
        os.environ["RAY_AUTH_TOKEN_PATH"] = _own_token()
    # Ray starts workers at nice 15: beside any other busy process they would hardly run.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Those started ahead lack the environment below, so nothing would ever run in them.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # that it is protected is no warning
    # Workers alone must not take all there is, or nothing is left to read their windows.
    workers = max(resources.train_workers, resources.infer_workers)
    start = functools.partial(
        ray.init,
        address="local",
        num_cpus=max(resources.logical_cpus, math.ceil(workers * resources.cpus_per_worker) + 1),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
        _temp_dir=_short_folder(),
        runtime_env={"env_vars": worker_environment(resources.threads_per_worker)},
    )
    for tries_left in reversed(range(START_TRIES)):
        before = set(psutil.Process().children())
        try:
            start()
            return
        except Exception as error:  # Ray has no type for it
            if "timed out during startup" not in str(error):
                raise
            _end_ray(set(psutil.Process().children()) - before)
            if not tries_left:
                raise UserError(
                    f"Ray did not start within {START_TRIES} times 30 seconds: this machine is too busy, or its disk "
                    "too slow; try again when less runs on it, or set resources.ray_address to a Ray that runs already "
                    "(`ray start --head`)"
                ) from error


def _end_ray(started: Iterable[psutil.Process]) -> None:
    """End the processes of a Ray that did not start in time: `ray.shutdown` knows nothing of them."""
    ray.shutdown()
    for process in started:
        with suppress(psutil.NoSuchProcess):
            if ray.__path__[0] in " ".join(process.cmdline()):
                for one in (process, *process.children(recursive=True)):
                    one.kill()


def _short_folder() -> str | None:
    """Where Ray keeps its session; None for its usual place.

    Its sockets lie there, and the path of a Unix socket must not be longer than 107 bytes, of which Ray's own part
    takes up to 71.

    Raises:
        UserError: the folder for temporary files is too long a path, and /tmp cannot be written.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(usual)) <= _LONGEST_TEMPORARY:
        return None
    if os.access("/tmp", os.W_OK | os.X_OK):
        return "/tmp/ray"
    raise UserError(
        f"TMPDIR: {usual} is longer than {_LONGEST_TEMPORARY} bytes, too long for the Unix sockets that Ray keeps "
        "there, and /tmp cannot be written; set TMPDIR (or RAY_TMPDIR) to a shorter path"
    )


def _check_gpus(resources: ResourcesConfig, trains: bool) -> None:
    """A local Ray never gets more GPUs than it found: what asks for more would wait for ever, without a word."""
    found, share = ray.cluster_resources().get("GPU", 0.0), resources.gpus_per_worker
    workers = (resources.min_train_workers or resources.train_workers) if trains else 1
    if found < share * workers:
        fitting = int(found / share)
        way = f"resources.train_workers {fitting}" if fitting else "resources.gpus_per_worker 0 for processors alone"
        raise UserError(
            f"resources.gpus_per_worker {share:g}: Ray found {found:g} GPUs on this machine, {workers} worker(s) need "
            f"{share * workers:g}; set {way}, or resources.ray_address to a cluster that has them"
        )


@functools.cache
def _own_token() -> str:
    """Path of a token of this process. One for all its sessions, since Ray reads it once a process."""
    folder = Path(tempfile.mkdtemp(prefix="idgbr-ray-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return str(token)


def quiet_ray_data() -> None:
    """Keep Ray Data's own progress bars and plans out of the job's output, in this process."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns, among others, that progress bars are off
