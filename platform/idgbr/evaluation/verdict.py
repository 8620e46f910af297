"""What a gate found: every rule with what was measured, and the decision."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from idgbr.evaluation.bootstrap import Interval
from idgbr.evaluation.result import describe, heading_of, percent
from idgbr.evaluation.scores import Score, Scores


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
    """One rule, and how it went.

    Attributes:
        kind: which sort of rule.
        figure: what it is about, for example "boundary_iou of road".
        passed: whether it holds.
        said: found and wanted, in words.
    """

    kind: Literal["floor", "ceiling", "regression", "gain", "cost"]
    figure: str
    passed: bool
    said: str


class Verdict(Frozen):
    """A challenger against the champion, or against the floors alone where there is none.

    Attributes:
        data: name of the data the gate stands on.
        fingerprint: of the gate's scenes.
        blocks: labelled blocks they hold.
        challenger: what wants to become champion.
        champion: what is champion; None for a first promotion.
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
        """Why not, in words."""
        return [f"{rule.kind}: {rule.said}" for rule in self.rules if not rule.passed]

    def summary(self) -> str:
        """One line on how it went."""
        if not self.passed:
            return "; ".join(self.reasons)
        gain = next((rule.said for rule in self.rules if rule.kind == "gain"), None)
        return gain or "no champion before it; the floors hold"

    def table(self) -> Table:
        """Figures side by side, in percent, with the interval of their difference."""
        table = Table(
            title=f"Gate on {self.data}: {self.blocks} blocks", caption=None if self.passed else self.summary()
        )
        table.add_column("figure", no_wrap=True)
        table.add_column(self.champion.model if self.champion else "no champion", justify="right")
        table.add_column(self.challenger.model, justify="right")
        table.add_column("difference, points", justify="right")
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
            "figure (percent)",
            self.champion.model if self.champion else "–",
            self.challenger.model,
            "difference",
        ]
        lines = ["| " + " | ".join(columns) + " |", "|---|---:|---:|---:|"]
        lines += ["| " + " | ".join(row) + " |" for row in self._rows()]
        rules = [f"- [{'x' if rule.passed else ' '}] {rule.kind}: {rule.said}" for rule in self.rules]
        return head + "\n".join(lines) + "\n\n## Rules\n\n" + "\n".join(rules) + "\n"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        ours, theirs = self.challenger.figures(), self.champion.figures() if self.champion else {}
        by_name = {interval.metric: interval for interval in self.differences}
        shown = ["miou", "accuracy", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm7_edge", "repair_worse"]
        rows = [
            (
                heading_of(name),
                percent(theirs.get(name)),
                percent(ours.get(name)),
                describe(by_name[name]) if name in by_name else "",
            )
            for name in shown
        ]
        rows += [
            (interval.metric, "", "", describe(interval)) for interval in self.differences if " of " in interval.metric
        ]
        for name in ("seconds_per_megapixel", "megabytes"):
            before = f"{theirs[name]:.2f}" if theirs else ""
            rows.append((name.replace("_", " "), before, f"{ours[name]:.2f}", ""))
        return rows


def value_of(scores: Scores, figure: str, class_id: int | None = None) -> Score:
    """A figure by name, of one class where given."""
    if class_id is None:
        found: Score = getattr(scores, figure)
        return found
    per_class: list[Score] = getattr(scores, f"class_{figure}")
    return per_class[class_id]
