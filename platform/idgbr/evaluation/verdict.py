"""The gate's verdict: every rule with its measured figures, and the decision."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from idgbr.evaluation.bootstrap import Interval
from idgbr.evaluation.quantities import describe, heading_of, shown
from idgbr.evaluation.scores import Scores

_ROWS = ("miou", "accuracy", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm7_edge", "repair_worse", "regions",
         "fragments", "boundary_length")  # fmt: skip
"""Figures of the verdict's table."""


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(Frozen):
    """What running a model costs: seconds per megapixel of both stages on one worker, megabytes of its folder."""

    seconds_per_megapixel: float
    megabytes: float


class Candidate(Frozen):
    """A model version as the gate measured it.

    Attributes:
        model: NAME/VERSION.
        scores: figures of its refined maps.
        cost: what running it costs.
    """

    model: str
    scores: Scores
    cost: Cost

    def figures(self) -> dict[str, float]:
        """Every single-valued figure that there is, by name."""
        scores = {key: value for key, value in self.scores.model_dump().items() if isinstance(value, float)}
        return scores | self.cost.model_dump()


class Rule(Frozen):
    """One rule and its outcome.

    Attributes:
        kind: the kind of rule.
        figure: the figure it checks, for example "boundary_iou of road".
        passed: whether it holds.
        message: the value found and the value expected, in words.
    """

    kind: Literal["floor", "ceiling", "regression", "gain", "cost"]
    figure: str
    passed: bool
    message: str


class Verdict(Frozen):
    """A challenger against the champion, or against the floors alone where there is none.

    Attributes:
        data: name of the gate's data set.
        fingerprint: of the gate's scenes.
        blocks: labelled blocks they hold.
        challenger: the candidate for champion.
        champion: the present champion; None for a first promotion.
        differences: challenger minus champion.
        rules: every rule, the failed ones included.
        created: UTC, ISO 8601.
    """

    data: str
    fingerprint: str
    blocks: int
    classes: list[str]
    challenger: Candidate
    champion: Candidate | None
    differences: list[Interval]
    rules: list[Rule]
    created: str

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(rule.passed for rule in self.rules)

    @property
    def reasons(self) -> list[str]:
        """The failed rules, in words."""
        return [f"{rule.kind}: {rule.message}" for rule in self.rules if not rule.passed]

    def summary(self) -> str:
        """The outcome in one line."""
        if not self.passed:
            return "; ".join(self.reasons)
        gain = next((rule.message for rule in self.rules if rule.kind == "gain"), None)
        return gain or "no champion before it; the floors hold"

    def table(self) -> Table:
        """Figures side by side (shares in percent), with the interval of their difference."""
        table = Table(
            title=f"Gate on {self.data}: {self.blocks} blocks", caption=None if self.passed else self.summary()
        )
        table.add_column("figure", no_wrap=True)
        table.add_column(self.champion.model if self.champion else "no champion", justify="right")
        table.add_column(self.challenger.model, justify="right")
        table.add_column("difference", justify="right")
        for row in self._rows():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The verdict as a Markdown page."""
        head = f"# {self.challenger.model}: {'passed' if self.passed else 'refused'}\n\n"
        against = self.champion.model if self.champion else "no champion: the floors alone"
        head += (
            f"Against {against}; {self.data}, fingerprint {self.fingerprint}, {self.blocks} blocks; {self.created}.\n\n"
        )
        columns = [
            "figure (shares in percent)",
            self.champion.model if self.champion else "–",
            self.challenger.model,
            "difference",
        ]
        lines = ["| " + " | ".join(columns) + " |", "|---|---:|---:|---:|"]
        lines += ["| " + " | ".join(row) + " |" for row in self._rows()]
        rules = [f"- [{'x' if rule.passed else ' '}] {rule.kind}: {rule.message}" for rule in self.rules]
        return head + "\n".join(lines) + "\n\n## Rules\n\n" + "\n".join(rules) + "\n"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        ours, theirs = self.challenger.figures(), self.champion.figures() if self.champion else {}
        by_name = {interval.metric: interval for interval in self.differences}
        rows = [
            (
                heading_of(name),
                shown(name, theirs.get(name)),
                shown(name, ours.get(name)),
                describe(by_name[name]) if name in by_name else "",
            )
            for name in _ROWS
        ]
        others = [interval for interval in self.differences if interval.metric not in ours]
        rows += [(heading_of(interval.metric), "", "", describe(interval)) for interval in others]
        for name in ("seconds_per_megapixel", "megabytes"):
            before = f"{theirs[name]:.2f}" if theirs else ""
            rows.append((name.replace("_", " "), before, f"{ours[name]:.2f}", ""))
        return rows
