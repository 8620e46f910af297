"""What an evaluation found: figures of every method, as JSON, as a table on the terminal and as Markdown."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from idgbr.config.data import ClassSpec
from idgbr.errors import UserError
from idgbr.evaluation.bootstrap import Interval
from idgbr.evaluation.scores import Scores

COLUMNS = {
    "miou": "mIoU",
    "accuracy": "accuracy",
    "boundary_iou": "boundary IoU",
    "boundary_f1": "boundary F1",
    "wfm3_edge": "WFm(3) edge",
    "wfm3_min": "WFm(3) min",
    "wfm5_edge": "WFm(5)",
    "wfm7_edge": "WFm(7)",
    "repair_worse": "blocks made worse",
}
"""Figures of the tables and their headings, in percent."""
LOWER_IS_BETTER = {"repair_worse", "repair_damage"}


class EvaluationResult(BaseModel):
    """Figures of an evaluation on one split.

    Attributes:
        data: name of the data set.
        model: name and version, or folder, of the model.
        split: the split that was measured.
        created: UTC, ISO 8601.
        commit: git commit of the code, where known.
        classes: in the order of their ids.
        block: side of the blocks in pixels.
        methods: figures over the whole split; coarse first, then refined, then the classical methods.
        scenes: region id -> method -> figures.
        block_changes: change in the share of right pixels, refined minus coarse, of every labelled block, ascending.
        intervals: refined minus coarse; empty without a refined map.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    model: str
    split: str
    created: str
    commit: str | None
    classes: list[ClassSpec]
    block: int
    methods: dict[str, Scores]
    scenes: dict[str, dict[str, Scores]]
    block_changes: list[float]
    intervals: list[Interval]

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or holds something else.
        """
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise UserError(
                f"{path}: no evaluation result could be read ({str(error).splitlines()[0]}); "
                "expected the JSON that an evaluation writes beside its report"
            ) from error

    def best(self, figure: str) -> set[str]:
        """Methods with the best value of a figure, as printed; empty with fewer than two to compare."""
        values = {m: getattr(s, figure) for m, s in self.methods.items()}
        printed = {m: percent(v) for m, v in values.items() if v is not None}
        if len(printed) < 2:
            return set()
        winner = (min if figure in LOWER_IS_BETTER else max)(float(v) for v in printed.values())
        return {m for m, v in printed.items() if float(v) == winner}

    def table(self) -> Table:
        """The methods' figures in percent, best in bold, with the intervals as caption."""
        table = Table(title=f"{self.data}, {self.split} split, {self.model} (percent)", caption=self._caption())
        table.add_column("method", no_wrap=True)
        for heading in COLUMNS.values():
            table.add_column(heading, justify="right")
        best = {figure: self.best(figure) for figure in COLUMNS}
        for method, scores in self.methods.items():
            cells = [percent(getattr(scores, figure)) for figure in COLUMNS]
            marked = [f"[bold]{c}[/bold]" if method in best[f] else c for f, c in zip(COLUMNS, cells, strict=True)]
            table.add_row(label(method), *marked)
        return table

    def markdown(self) -> str:
        """The same as a Markdown table, intervals below."""
        lines = ["| method | " + " | ".join(COLUMNS.values()) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
        best = {figure: self.best(figure) for figure in COLUMNS}
        for method, scores in self.methods.items():
            cells = [percent(getattr(scores, figure)) for figure in COLUMNS]
            marked = [f"**{c}**" if method in best[f] else c for f, c in zip(COLUMNS, cells, strict=True)]
            lines.append(f"| {label(method)} | " + " | ".join(marked) + " |")
        caption = self._caption()
        return "\n".join(lines) + (f"\n\n{caption}\n" if caption else "\n")

    def _caption(self) -> str:
        parts = [f"{heading_of(i.metric)} {describe(i)}" for i in self.intervals if i.difference is not None]
        return "Refined minus coarse, points, 95 % interval: " + "; ".join(parts) + "." if parts else ""


def percent(value: float | None, signed: bool = False) -> str:
    """A figure in percent with two decimals; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def describe(interval: Interval) -> str:
    """Difference and interval in points."""
    if interval.low is None or interval.high is None:
        return percent(interval.difference, signed=True)
    low, high = percent(interval.low, signed=True), percent(interval.high, signed=True)
    return f"{percent(interval.difference, signed=True)} ({low} to {high})"


def heading_of(figure: str) -> str:
    """A figure's heading."""
    return COLUMNS.get(figure, figure.replace("_", " "))


def label(method: str) -> str:
    """A method's name for people."""
    names = {"guided_filter": "guided filter", "grabcut": "GrabCut band", "densecrf": "DenseCRF"}
    return names.get(method, method)
