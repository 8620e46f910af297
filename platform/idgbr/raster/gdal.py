"""How GDAL is asked: its settings, addresses of files, and a small cache of open datasets."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises when a file is at fault; some of GDAL's own errors leak through it."""

REMOTE = {"s3://": "/vsis3/", "gs://": "/vsigs/", "https://": "/vsicurl/https://", "http://": "/vsicurl/http://"}

_REMOTE_PREFIXES = (*REMOTE, "/vsi")

_OPEN_DATASETS = 32
"""Handles kept per thread: image, label and coarse map of ten scenes, whose decoded blocks go when a handle does. Not
a folder of chips."""

_local = threading.local()


def gdal_path(uri: str) -> str:
    """The name GDAL knows a file by: s3:// and gs:// through their virtual file systems, local paths as they are."""
    if "://" not in uri:
        return uri  # asked for every window
    for scheme, prefix in REMOTE.items():
        if uri.startswith(scheme):
            return prefix + uri[len(scheme) :]
    return uri.removeprefix("file://")


def absolute(uri: str) -> str:
    """The address as any process finds it, whatever its working directory; buckets and GDAL's own paths stay."""
    if "://" in uri or uri.startswith("/vsi"):
        return uri
    return os.path.abspath(os.path.expanduser(uri))


def is_remote(uri: str) -> bool:
    return uri.startswith(_REMOTE_PREFIXES)


def s3_endpoint() -> str | None:
    """Endpoint of an S3 service other than Amazon's, with its scheme, from the variables GDAL or the AWS tools read."""
    ours = os.environ.get("AWS_S3_ENDPOINT")
    if ours and "://" not in ours:
        secure = os.environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
        return f"{'https' if secure else 'http'}://{ours}"
    return ours or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=32)
def _options(remote: bool, endpoint: str | None, cache_mb: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "GDAL_CACHEMAX": cache_mb * 2**20,
        "GDAL_NUM_THREADS": 1,
        # A bucket must not be listed for every file opened. On a local disk side-cars (world files, masks, external
        # overviews) are looked up by name, which costs nothing and keeps their georeference.
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if remote else "TRUE",
        "GDAL_PAM_ENABLED": not remote,
    }
    if endpoint:
        scheme, _, host = endpoint.rstrip("/").partition("://")
        options |= {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": scheme == "https", "AWS_VIRTUAL_HOSTING": False}
    return options


def gdal_env(uri: str = "", cache_mb: int = 64) -> AbstractContextManager[None]:
    """GDAL's settings for reading or writing `uri`: one thread, a small block cache, no listing of buckets.

    GDAL finds credentials by itself (environment, profiles, instance roles), hence no session of rasterio's. It takes
    a small GDAL_CACHEMAX for megabytes, rasterio takes it for bytes. Inside of equal settings it does nothing: a
    loop over windows enters it once, and saves a tenth of the time of a window that decodes fast. Such a loop also
    takes files for unchanged: each is looked at once, see `version_of`.
    """
    needed = _options(is_remote(uri), s3_endpoint() if uri.startswith("s3://") else None, cache_mb)
    around = getattr(_local, "options", None)
    return nullcontext() if needed is around or needed == around else _entered(needed, around)


@contextmanager
def _entered(needed: dict[str, Any], around: dict[str, Any] | None) -> Iterator[None]:
    versions = getattr(_local, "versions", None)
    _local.options, _local.versions = needed, {}
    try:
        with rasterio.Env(session=DummySession(), **needed):
            yield
    finally:
        _local.options, _local.versions = around, versions


def open_quietly(uri: str, **options: Any) -> Any:
    """rasterio.open without its warning about files that have no georeference, which are welcome here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(gdal_path(uri), **options)


def cached_dataset(key: Hashable, opener: Callable[[], Any]) -> Any:
    """The open dataset of `key`, opened by `opener` unless this thread of this process still holds it.

    GDAL handles belong to one thread and do not survive a fork, hence one cache for each.
    """
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.datasets = os.getpid(), OrderedDict()
    datasets: OrderedDict[Hashable, Any] = _local.datasets
    if key in datasets:
        datasets.move_to_end(key)
        return datasets[key]
    dataset = datasets[key] = opener()
    while len(datasets) > _OPEN_DATASETS:
        datasets.popitem(last=False)[1].close()
    return dataset


def version_of(uri: str) -> tuple[int, int]:
    """Modification time and size of a local file, so that a rewritten file is opened anew; zeros for remote ones.

    Inside of `gdal_env` a file is looked at once.
    """
    versions: dict[str, tuple[int, int]] | None = getattr(_local, "versions", None)
    if versions is None:
        return _look_at(uri)
    if uri not in versions:
        versions[uri] = _look_at(uri)
    return versions[uri]


def _look_at(uri: str) -> tuple[int, int]:
    if is_remote(uri):
        return (0, 0)
    try:
        status = os.stat(gdal_path(uri))
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
