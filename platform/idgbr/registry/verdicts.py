"""Storage of quality gate verdicts: a run with report and figures, tags of the version, a section of its card."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from idgbr.config.tree import Experiment
from idgbr.evaluation.quantities import describe, heading_of, shown, with_unit
from idgbr.evaluation.verdict import Verdict
from idgbr.registry.aliases import VERDICT_TAG, WHY_TAG, set_tags
from idgbr.registry.card import add_verdict
from idgbr.registry.tracking import Tracker

RUN_TAG = "gate.run"
"""Tag with the id of the run that has the report of a version's last quality gate."""


def record(client: MlflowClient, config: Experiment, verdict: Verdict, files: Path) -> str:
    """Writes a verdict to the challenger's version. Callers must do this before they move any alias.

    Args:
        client: the store.
        config: the rules of the gate, logged with the run.
        verdict: the verdict.
        files: folder of the reports to log.

    Returns:
        The run's id.
    """
    name, version = verdict.challenger.model.rsplit("/", 1)
    changes = {interval.metric: interval for interval in verdict.differences}
    figures = verdict.challenger.figures()
    word = "promoted" if verdict.passed else "refused"
    with Tracker(
        config.tracking,
        f"gate-{name}-{version}",
        config,
        verdict.fingerprint,
        tags={"model": verdict.challenger.model, VERDICT_TAG: word},
        fresh=True,
    ) as run:
        run.log_metrics(figures)
        run.log_metrics({f"change.{k}": i.difference for k, i in changes.items() if i.difference is not None})
        run.log_text(verdict.markdown(), "verdict.md")
        run.log_text(verdict.model_dump_json(indent=1), "verdict.json")
        run.log_artifacts(files)
    tags = {
        f"gate.{figure}": f"{value:.4g}"
        + (f", {with_unit(figure, describe(changes[figure]), change=True)}" if figure in changes else "")
        for figure, value in figures.items()
    }
    tags |= {f"gate.{k.replace(' ', '.')}": describe(i) for k, i in changes.items() if k not in figures}
    tags |= {
        "gate.at": verdict.created,
        "gate.against": verdict.champion.model if verdict.champion else "no champion",
        "gate.data": f"{verdict.data}, fingerprint {verdict.fingerprint}, {verdict.blocks} blocks",
        WHY_TAG: verdict.summary(),
        RUN_TAG: run.run_id,
        # Must be the last tag: a version that has it has all others.
        VERDICT_TAG: word,
    }
    set_tags(client, name, version, tags)
    add_verdict(client, name, version, _section(verdict, word))
    return run.run_id


def _section(verdict: Verdict, word: str) -> str:
    """The section of the card about a verdict."""
    against = verdict.champion.model if verdict.champion else "the floors, no champion being there"
    lines = [
        f"{word.capitalize()} on {verdict.created[:10]} against {against}, on {verdict.data} ({verdict.blocks} blocks)."
    ]
    figures = verdict.challenger.figures()
    lines += [
        f"- {heading_of(name)}: {shown(name, figures[name])}"
        for name in ("miou", "boundary_iou", "wfm3_edge", "regions", "fragments", "boundary_length")
        if name in figures
    ]
    lines += [f"- {reason}" for reason in verdict.reasons]
    return "\n".join(lines)
