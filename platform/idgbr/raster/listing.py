"""From patterns to files: what a person names on the command line or in a config."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable
from typing import Any

from idgbr.errors import UserError
from idgbr.raster.gdal import s3_endpoint

IMAGE_SUFFIXES = (".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg", ".jp2", ".img")
VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".gdb", ".parquet", ".kml")
_ALSO_VECTOR = (".zip", ".shz", ".kmz", ".gml", ".topojson", ".csv", ".xml", ".txt")
"""Files of these are polygons, or annotations, where they are named; a folder's may be anything."""
_FOLDERS = (".gdb",)
"""Endings of folders that are one file: file geodatabases."""

_MAGIC = "*?["


def expand(patterns: Iterable[str], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[str]:
    """Files named by files, folders and globs, local or in buckets.

    Args:
        patterns: a file as it is; a folder (its files with one of `suffixes`, not those of its subfolders); or a glob,
            in which ** reaches into subfolders. Local paths, s3:// or gs://.
        suffixes: which files of a folder count.

    Returns:
        Sorted, each file once.

    Raises:
        UserError: a pattern names nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        files = _bucket_files(pattern, suffixes) if "://" in pattern else _local_files(pattern, suffixes)
        if not files:
            raise UserError(
                f"{pattern}: {_nothing(pattern, suffixes)}. Expected files ending in {', '.join(suffixes)}; check path "
                "and spelling."
            )
        found.update(files)
    if not found:
        raise UserError("no input files were named. Expected files, folders or globs.")
    return sorted(found)


def is_vector(uri: str) -> bool:
    """Whether a label file is one of polygons by its name."""
    return uri.lower().endswith((*VECTOR_SUFFIXES, *_ALSO_VECTOR))


def _counts(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file of a folder is meant: macOS and unfinished copies leave hidden ones with the same suffix."""
    return name.lower().endswith(suffixes) and not name.rpartition("/")[2].startswith(".")


def _nothing(pattern: str, suffixes: tuple[str, ...]) -> str:
    """Why a pattern names nothing."""
    if "://" not in pattern and os.path.isdir(folder := os.path.expanduser(pattern)):
        held = sorted({os.path.splitext(name)[1] for name in os.listdir(folder)} - {""})
        if {end.lower() for end in held} & {*IMAGE_SUFFIXES, *VECTOR_SUFFIXES} - {*suffixes}:
            return f"a folder that holds {', '.join(held[:8])}; data.label.kind vector is for polygons alone"
        if held:
            way_out = f"name such files by a pattern in quotes ({folder.rstrip('/')}/*{held[0]})"
            return f"a folder that holds {', '.join(held[:8])}; {way_out}"
    if "[" in pattern:
        return (
            "no file matches; [ ] in a pattern stand for one of the characters between them, and a [ of a name is "
            "written [[]"
        )
    return "no file matches" if _is_glob(pattern) else "no such file, or a folder without images"


def _local_files(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    if pattern.startswith("/vsi"):
        return [pattern]  # GDAL's own file systems, such as /vsizip/; opening it says whether it is there
    path = os.path.expanduser(pattern.removeprefix("file://"))
    if os.path.isdir(path) and not _is_file(path):
        names = (os.path.join(path, name) for name in os.listdir(path))
        return [name for name in names if _counts(name, suffixes) and _is_file(name)]
    if os.path.exists(path):
        return [path.rstrip("/")]
    return [name.rstrip("/") for name in glob.glob(path, recursive=True) if _is_file(name)]


def _is_file(path: str) -> bool:
    return os.path.isfile(path) or (path.rstrip("/").lower().endswith(_FOLDERS) and os.path.isdir(path))


def _bucket_files(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    """Listing is the one thing rasterio cannot do in a bucket; Arrow's file systems can."""
    scheme, _, path = pattern.partition("://")
    if scheme not in ("s3", "gs"):
        return [pattern]
    from pyarrow import fs

    listed = path[: min(path.index(c) for c in _MAGIC if c in path)].rpartition("/")[0] if _is_glob(path) else path
    try:
        system = _s3() if scheme == "s3" else fs.GcsFileSystem()
        if not _is_glob(path) and system.get_file_info(path).type == fs.FileType.File:
            return [pattern]
        selector = fs.FileSelector(listed.rstrip("/"), recursive="**" in path or "/" in path[len(listed) + 1 :])
        names = [info.path for info in system.get_file_info(selector) if info.type == fs.FileType.File]
    except OSError as error:
        raise UserError(
            f"{pattern}: cannot be listed ({' '.join(str(error).split())[:300]}). Check the bucket's name, the "
            "credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION) and, for a service of your own, "
            "AWS_S3_ENDPOINT."
        ) from error
    if _is_glob(path):
        return [f"{scheme}://{name}" for name in names if _matches(name, path)]
    return [f"{scheme}://{name}" for name in names if _counts(name, suffixes)]


def _is_glob(path: str) -> bool:
    return any(c in path for c in _MAGIC)


def _matches(name: str, pattern: str) -> bool:
    """Shell matching, in which * stays inside a folder and ** does not."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(name, pattern.replace("**/", "*"))
    ours, theirs = name.split("/"), pattern.split("/")
    return len(ours) == len(theirs) and all(map(fnmatch.fnmatchcase, ours, theirs))


def _s3() -> Any:
    from pyarrow import fs

    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(endpoint_override=s3_endpoint(), region=region, anonymous=anonymous)
