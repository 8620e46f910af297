"""A doubt about an input file, as every check reports it and every job prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing about one input that is not as expected.

    Attributes:
        path: file, folder or pattern that the finding is about.
        found: what the check saw there, as a clause without a full stop.
        key: configuration key or flag that settles the doubt, may be empty.
        advice: what to do about it, as a clause without a full stop.
        severity: ``error`` ends a job before it starts, ``warning`` is printed and the job goes on.
    """

    path: str
    found: str
    key: str
    advice: str
    severity: Literal["error", "warning"]

    def message(self) -> str:
        """Return the finding as one line: file, what was found, the key, and what to do."""
        key = f" (`{self.key}`)" if self.key else ""
        advice = f"; {self.advice}{key}" if self.advice else key
        return f"{self.path}: {self.found}{advice}"
