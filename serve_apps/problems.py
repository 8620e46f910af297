"""What stands between a request and its map, as an HTTP problem after RFC 9457: the one mapping from exceptions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError

from idgbr.errors import UserError
from serve_apps.calls import replica_lost
from serve_apps.model_shelf import ModelUnavailable

if TYPE_CHECKING:
    from idgbr.raster.image_limits import Fault

LOG = logging.getLogger("ray.serve")
INTERNAL_DETAIL = "the reason is in the service's log (logs/serve of Ray's session folder), under this request id"
_IMAGE_FAULTS: dict[Fault, tuple[int, str]] = {
    "format": (415, "Unsupported format"),
    "damaged": (400, "Damaged body"),
    "size": (413, "Too large"),
    "content": (422, "Unprocessable image"),
}


@dataclass(frozen=True)
class Problem:
    """Why there is no map, and what to do, after RFC 9457.

    Attributes:
        status: HTTP status.
        title: the kind of problem.
        detail: what was found, what was expected, what to do.
        retry_after: seconds after which another try makes sense; None where it does not.
    """

    status: int
    title: str
    detail: str
    retry_after: int | None = None


class ProblemError(Exception):
    """Raised where a request cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @classmethod
    def of(cls, status: int, title: str, detail: str, retry_after: int | None = None) -> ProblemError:
        return cls(Problem(status, title, detail, retry_after))


QUEUE_FULL = Problem(429, "Too many requests", "every replica and its queue are full; try again a little later", 2)
REPLICA_LOST = Problem(503, "Replica lost", "a replica ended while it worked on this request; try again", 1)


def timed_out(limit_s: float) -> Problem:
    """A map that was not ready in time."""
    return Problem(
        504,
        "Timed out",
        f"no map within {limit_s:g} s though it was expected in time: this machine is slower than it was when the "
        "service started; try again, or send a smaller image or fewer steps or samples",
    )


def problem_from(error: BaseException, limit_s: float) -> Problem:
    """The problem that an exception stands for; one that nobody expected is logged.

    Args:
        error: of the gateway or of a scene worker, or of a call to another deployment.
        limit_s: how long a map may take.
    """
    from idgbr.raster.image_limits import BadImage

    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, ProblemError):
        return cause.problem
    if isinstance(cause, BadImage):
        return Problem(*_IMAGE_FAULTS[cause.fault], str(cause))
    if isinstance(cause, ModelUnavailable):
        return Problem(503, "Model not ready", str(cause), 5)
    if isinstance(cause, ValidationError):
        return Problem(422, "Invalid parameters", "; ".join(fault["msg"] for fault in cause.errors()))
    if isinstance(cause, UserError):
        return Problem(422, "Unprocessable image", str(cause))
    if isinstance(cause, TimeoutError):
        return timed_out(limit_s)
    if isinstance(cause, BackPressureError):
        return QUEUE_FULL
    if replica_lost(error):
        return REPLICA_LOST
    LOG.exception("request failed", exc_info=error)
    return Problem(500, "Internal error", INTERNAL_DETAIL)
