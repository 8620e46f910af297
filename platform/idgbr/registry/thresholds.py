"""Rules of the quality gate that need no champion: floors and ceilings of single figures, as MLflow thresholds."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import mlflow
from mlflow.models import EvaluationResult, MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException

from idgbr.config.evaluation import GateConfig
from idgbr.evaluation.quantities import heading_of, shown, with_unit
from idgbr.evaluation.verdict import Rule

logging.getLogger(mlflow.models.evaluation.validation.__name__).setLevel(
    logging.WARNING
)  # each rule has its own message


def absolute_rules(figures: Mapping[str, float], gate: GateConfig) -> list[Rule]:
    """Floors and ceilings, each validated by MLflow.

    Args:
        figures: figures of the challenger by name; a figure that could not be measured is missing and fails its rules.
        gate: the rules.
    """
    rules = []
    for kind, limits, higher in (("floor", gate.floors, True), ("ceiling", gate.ceilings, False)):
        for figure, limit in limits.items():
            threshold = MetricThreshold(threshold=float(limit), greater_is_better=higher)
            found = figures.get(figure)
            bound = "at least" if higher else "at most"
            message = f"{heading_of(figure)}: found {_printed(figure, found)}; expected {bound} "
            message += _printed(figure, float(limit))
            passed = found is not None and _holds(figure, found, threshold)
            rules.append(Rule(kind=kind, figure=figure, passed=passed, message=message))  # type: ignore[arg-type]
    return rules


def _holds(figure: str, value: float, threshold: MetricThreshold) -> bool:
    """Validate one figure at a time: for several figures, MLflow reports the failures in a single text only."""
    result = EvaluationResult(metrics={figure: value}, artifacts={})
    try:
        mlflow.validate_evaluation_results({figure: threshold}, result)
    except ModelValidationFailedException:
        return False
    return True


def _printed(figure: str, value: float | None) -> str:
    return "nothing to measure" if value is None else with_unit(figure, shown(figure, value))
