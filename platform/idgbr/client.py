"""Typed client of the online service.

from idgbr.client import Client

client = Client("http://127.0.0.1:8000")
client.refine_file("scene.tif", "map.tif")
maps = client.refine(image)                  # (B, H, W) array in, class ids out
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from idgbr.errors import IdgbrError, UserError
from idgbr.files import write_atomically
from idgbr.raster.gdal import gdal_env, open_quietly

_TYPES = {
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".png": "image/png",
    ".geojson": "application/geo+json",
    ".json": "application/geo+json",
}


class ServiceError(IdgbrError):
    """The service did not make a map.

    Attributes:
        status: HTTP status.
        detail: What was found and what to do.
    """

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{title} ({status}): {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class MapResult:
    """Maps of one image.

    Attributes:
        refined: (H, W) uint8 class ids, 255 is nodata.
        coarse: Likewise, of stage 1 (or the one sent).
        uncertainty: (H, W) uint8, 0 to 254 for 0 to 1, 255 is nodata.
        model: The version that made them, such as idgbr-demo/3.
        windows: How many windows each stage predicted.
        milliseconds: By step of the work.
    """

    refined: NDArray[np.uint8]
    coarse: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]
    model: str
    windows: dict[str, int]
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Step:
    """A denoising step on the way.

    Attributes:
        progress: 0 to 1.
        picture: PNG of the map so far, small; its palette has the classes' colours.
    """

    progress: float
    picture: bytes


class Client:
    """Client of one service. Thread-safe as far as `requests.Session` is.

    Args:
        url: Where it is, such as http://127.0.0.1:8000.
        key: API key, where it asks for one.
        timeout: Seconds without a byte before a call fails.
        retries: How often a call that got 429, 503 or no connection is made again, after the seconds of Retry-After.
    """

    def __init__(self, url: str, key: str = "", timeout: float = 300.0, retries: int = 6) -> None:
        self._url, self._timeout = url.rstrip("/"), timeout
        self._session = requests.Session()
        # POST too: a map has no side effects.
        retry = Retry(
            retries, status_forcelist=(429, 503), allowed_methods=None, backoff_factor=0.2, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        if key:
            self._session.headers["authorization"] = f"Bearer {key}"

    def model(self) -> dict[str, Any]:
        """Name, versions, classes, bands and metrics of the model that is served."""
        answer: dict[str, Any] = self._checked(self._session.get(f"{self._url}/v1/model", timeout=self._timeout)).json()
        return answer

    def refine_file(
        self, image: str | Path, output: str | Path, coarse: str | Path | None = None, **options: Any
    ) -> Path:
        """Refines a file into a file.

        Args:
            image: GeoTIFF, PNG, JPEG or .npy.
            output: .tif, .png or .geojson; written at once or not at all.
            coarse: Own coarse map; stage 1 is left out.
            options: steps, samples, guidance, seed; of .geojson also min_area (square metres), simplify (metres) and
                regularise (class names with commas between).

        Raises:
            UserError: No such file, or an output of another kind.
            ServiceError: The service refused it.
        """
        target = Path(output)
        media = _TYPES.get(target.suffix.lower())
        if media is None:
            raise UserError(f"{output}: unknown kind of map; expected one of {', '.join(_TYPES)}")
        bodies = [_read(path) for path in (image, coarse) if path is not None]
        answer = self._post("/v1/refine", bodies, media, options)
        write_atomically(target, answer.content)
        return target

    def refine(self, image: NDArray, coarse: NDArray[np.uint8] | None = None, **options: Any) -> MapResult:
        """Refines an array.

        Args:
            image: (B, H, W) in the imagery's own dtype; NaN is nodata.
            coarse: (H, W) own coarse class ids, 255 is nodata; stage 1 is left out.
            options: steps, samples, guidance, seed.

        Raises:
            ServiceError: The service refused it.
        """
        bodies = [_npy(array) for array in (image, coarse) if array is not None]
        answer = self._post("/v1/refine", bodies, "multipart/mixed", options)
        parts = _parts(answer)
        windows = dict(item.split("=") for item in answer.headers["x-idgbr-windows"].split(", "))
        return MapResult(
            parts["refined"],
            parts["coarse"],
            parts["uncertainty"],
            answer.headers["x-idgbr-model"],
            {name: int(count) for name, count in windows.items()},
            dict(_timing(item) for item in answer.headers["server-timing"].split(", ")),
        )

    def steps(self, image: NDArray, **options: Any) -> Iterator[Step]:
        """The map as it takes shape. Closing the iterator stops the computation.

        Args:
            image: (B, H, W) in the imagery's own dtype.
            options: steps, samples, guidance, seed.
        """
        url, body = f"{self._url}/v1/refine/stream", _npy(image)
        with self._session.post(url, body, params=options, stream=True, timeout=self._timeout) as answer:
            for line in self._checked(answer).iter_lines():
                event = json.loads(line)
                if event["type"] == "problem":
                    raise ServiceError(event["status"], event["title"], event["detail"])
                if event["type"] == "step":
                    yield Step(event["progress"], base64.b64decode(event["png"]))

    def _post(self, path: str, bodies: list[bytes], media: str, options: dict[str, Any]) -> requests.Response:
        if len(bodies) == 1:
            sent: dict[str, Any] = {"data": bodies[0], "headers": {"accept": media}}
        else:
            sent = {"files": {"image": bodies[0], "coarse": bodies[1]}, "headers": {"accept": media}}
        return self._checked(self._session.post(f"{self._url}{path}", params=options, timeout=self._timeout, **sent))

    def _checked(self, answer: requests.Response) -> requests.Response:
        if answer.ok:
            return answer
        try:
            problem = answer.json()
        except requests.JSONDecodeError:
            problem = {}
        title = problem.get("title", answer.reason)
        raise ServiceError(answer.status_code, title, problem.get("detail", answer.text[:200]))


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an image file") from error


def _npy(array: NDArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _parts(answer: requests.Response) -> dict[str, NDArray[np.uint8]]:
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    found = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(data, bytes):
            with gdal_env("/vsimem/"), MemoryFile(data) as memory, open_quietly(memory.name) as file:
                found[name] = file.read(1)
    return found


def _timing(item: str) -> tuple[str, float]:
    name, _, value = item.partition(";dur=")
    return name, float(value)
