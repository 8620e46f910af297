"""What an evaluation found: figures of every method, as JSON, as a table on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from idgbr.config.data import ClassSpec
from idgbr.errors import UserError
from idgbr.evaluation.bootstrap import Interval
from idgbr.evaluation.quantities import COLUMNS, best_methods, describe, heading_of, shown
from idgbr.evaluation.scores import Scores
from idgbr.files import write_atomically


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
        fragment: pixels of the smallest region that is no fragment.
        methods: figures over the whole split; coarse first, then refined, then the classical methods; METHOD_merged is
            a method's map with the minimum mapping unit of the refiner applied.
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
    fragment: int
    methods: dict[str, Scores]
    scenes: dict[str, dict[str, Scores]]
    block_changes: list[float]
    intervals: list[Interval]

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_atomically(path, self.model_dump_json(indent=1) + "\n")

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
        return best_methods(figure, {method: getattr(scores, figure) for method, scores in self.methods.items()})

    def table(self) -> Table:
        """The methods' figures, best in bold, with the intervals as caption; shares in percent."""
        table = Table(title=f"{self.data}, {self.split} split, {self.model} (percent)", caption=self._caption())
        table.add_column("method", no_wrap=True)
        for figure in COLUMNS:
            table.add_column(heading_of(figure), justify="right")
        for method, cells in self._rows("[bold]{}[/bold]"):
            table.add_row(method, *cells)
        return table

    def markdown(self) -> str:
        """The same as a Markdown table, intervals below."""
        lines = ["| method | " + " | ".join(map(heading_of, COLUMNS)) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
        lines += [f"| {method} | " + " | ".join(cells) + " |" for method, cells in self._rows("**{}**")]
        caption = self._caption()
        return "\n".join(lines) + (f"\n\n{caption}\n" if caption else "\n")

    def _rows(self, bold: str) -> Iterator[tuple[str, list[str]]]:
        best = {figure: self.best(figure) for figure in COLUMNS}
        for method, scores in self.methods.items():
            cells = {figure: shown(figure, getattr(scores, figure)) for figure in COLUMNS}
            yield label(method), [bold.format(cell) if method in best[name] else cell for name, cell in cells.items()]

    def _caption(self) -> str:
        parts = [f"{heading_of(i.metric)} {describe(i)}" for i in self.intervals if i.difference is not None]
        return "Refined minus coarse, points, 95 % interval: " + "; ".join(parts) + "." if parts else ""


MERGED = "_merged"
"""End of the name of a method whose map has the minimum mapping unit of the refiner applied."""


def label(method: str) -> str:
    """A method's display name."""
    names = {"guided_filter": "guided filter", "grabcut": "GrabCut band", "densecrf": "DenseCRF"}
    plain = method.removesuffix(MERGED)
    return names.get(plain, plain) + (", merged" if method.endswith(MERGED) else "")
