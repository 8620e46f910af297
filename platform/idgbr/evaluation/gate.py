"""The rules that hold a challenger against the champion, on the same blocks of the same scenes."""

from __future__ import annotations

from collections.abc import Sequence

from idgbr.config.evaluation import GateConfig
from idgbr.evaluation.bootstrap import Interval, compare
from idgbr.evaluation.result import LOWER_IS_BETTER, describe, heading_of, percent
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.verdict import Cost, Rule

SHOWN = ("miou", "accuracy", "mean_f1", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm5_edge", "wfm7_edge",
         "repair_worse")  # fmt: skip
"""Figures whose differences every verdict holds, ruled on or not."""


def differences(
    champion: Tally, challenger: Tally, gate: GateConfig, classes: Sequence[str], repeats: int = 1000, seed: int = 0
) -> list[Interval]:
    """Challenger minus champion with 95 % intervals: every figure, then "FIGURE of CLASS" for those with a margin.

    Args:
        champion: counts of its refined maps.
        challenger: counts of its refined maps of the same regions.
        gate: the rules.
        classes: their names.
        repeats: resamples of blocks.
        seed: of the resampling.

    Raises:
        ValueError: the tallies are of different regions.
    """
    found = [compare(champion, challenger, figure, None, repeats, seed) for figure in SHOWN]
    for figure in gate.class_margins:
        for number, name in enumerate(classes):
            interval = compare(champion, challenger, figure, number, repeats, seed)
            found.append(interval.model_copy(update={"metric": f"{figure} of {name}"}))
    return found


def compare_rules(changes: Sequence[Interval], gate: GateConfig, costs: tuple[Cost, Cost] | None = None) -> list[Rule]:
    """The rules that need a champion: no regression, a gain, no great slowdown.

    A figure may fall by its margin and no more, whether or not the fall may be noise: the burden of proof is the
    challenger's. The gain has to reach what is asked for, and its whole interval to lie above zero.

    Args:
        changes: see `differences`.
        gate: the rules.
        costs: of champion and challenger; None leaves the rule on cost out.
    """
    by_name = {interval.metric: interval for interval in changes}
    rules = [_regression(by_name[figure], margin, figure in LOWER_IS_BETTER) for figure, margin in gate.margins.items()]
    for figure, margin in gate.class_margins.items():
        of_class = [interval for name, interval in by_name.items() if name.startswith(f"{figure} of ")]
        # A class that neither map nor truth has cannot get worse.
        rules += [_regression(interval, margin, False) for interval in of_class if interval.difference is not None]
    rules.append(_gain(by_name[gate.gain.figure], gate.gain.least))
    if costs is not None:
        before, after = (cost.seconds_per_megapixel for cost in costs)
        said = f"seconds per megapixel: found {after:.2f}, {after / before:.1f} times the champion's {before:.2f}"
        said += f"; allowed are {gate.slowdown:g} times"
        rules.append(
            Rule(kind="cost", figure="seconds_per_megapixel", passed=after <= gate.slowdown * before, said=said)
        )
    return rules


def _regression(change: Interval, margin: float, lower_is_better: bool) -> Rule:
    name = change.metric if " of " in change.metric else heading_of(change.metric)
    if change.difference is None:
        return Rule(kind="regression", figure=change.metric, passed=False, said=f"{name}: nothing to measure")
    loss = change.difference if lower_is_better else -change.difference
    direction = "rise" if lower_is_better else "fall"
    said = f"{name}: found {describe(change)} points; it may {direction} by {percent(margin)}"
    return Rule(kind="regression", figure=change.metric, passed=loss <= margin, said=said)


def _gain(change: Interval, least: float) -> Rule:
    name = heading_of(change.metric)
    if change.difference is None or change.low is None:
        return Rule(kind="gain", figure=change.metric, passed=False, said=f"{name}: nothing to measure")
    said = f"{name}: found {describe(change)} points; wanted at least {percent(least, signed=True)} and an interval "
    said += "above zero"
    passed = change.above_zero and change.difference >= least
    return Rule(kind="gain", figure=change.metric, passed=passed, said=said)
