"""The rules that hold a challenger against the champion, on the same blocks of the same scenes."""

from __future__ import annotations

from collections.abc import Sequence

from idgbr.config.evaluation import GateConfig
from idgbr.evaluation.bootstrap import Interval, compare
from idgbr.evaluation.quantities import describe, heading_of, quantity, shown, with_unit
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.verdict import Cost, Rule

SHOWN = ("miou", "accuracy", "mean_f1", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm5_edge", "wfm7_edge",
         "repair_worse", "regions", "fragments", "boundary_length")  # fmt: skip
"""Figures whose differences every verdict lists, whether or not a rule uses them."""


def differences(
    champion: Tally, challenger: Tally, gate: GateConfig, classes: Sequence[str], repeats: int = 1000, seed: int = 0
) -> list[Interval]:
    """Challenger minus champion with 95 % intervals: each figure, then "FIGURE of CLASS" for those with a class margin.

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
    figures = dict.fromkeys([*SHOWN, *gate.margins])
    changes = [compare(champion, challenger, figure, None, repeats, seed) for figure in figures]
    for figure in gate.class_margins:
        for number, name in enumerate(classes):
            interval = compare(champion, challenger, figure, number, repeats, seed)
            changes.append(interval.model_copy(update={"metric": f"{figure} of {name}"}))
    return changes


def compare_rules(changes: Sequence[Interval], gate: GateConfig, costs: tuple[Cost, Cost] | None = None) -> list[Rule]:
    """The rules that need a champion: no regression, a gain, no great slowdown.

    A figure may fall (or rise, where lower is better) by its margin and no more, whether or not the change may be
    noise: the burden of proof is the challenger's. The gain has to reach `gate.gain.least`, and its whole interval has
    to lie above zero.

    Args:
        changes: see `differences`.
        gate: the rules.
        costs: of champion and challenger; None leaves the rule on cost out.
    """
    by_name = {interval.metric: interval for interval in changes}
    rules = [_regression(by_name[figure], margin) for figure, margin in gate.margins.items()]
    for figure, margin in gate.class_margins.items():
        of_class = [interval for name, interval in by_name.items() if name.startswith(f"{figure} of ")]
        # A class that neither map nor truth has cannot get worse.
        rules += [_regression(interval, margin) for interval in of_class if interval.difference is not None]
    rules.append(_gain(by_name[gate.gain.figure], gate.gain.least))
    if costs is not None:
        before, after = (cost.seconds_per_megapixel for cost in costs)
        message = f"seconds per megapixel: found {after:.2f}, {after / before:.1f} times the champion's {before:.2f}"
        message += f"; expected at most {gate.slowdown:g} times"
        passed = after <= gate.slowdown * before
        rules.append(Rule(kind="cost", figure="seconds_per_megapixel", passed=passed, message=message))
    return rules


def _regression(change: Interval, margin: float) -> Rule:
    figure, name = change.metric, heading_of(change.metric)
    if change.difference is None:
        return Rule(kind="regression", figure=figure, passed=False, message=f"{name}: nothing to measure")
    lower_is_better = quantity(figure).better == "lower"
    loss = change.difference if lower_is_better else -change.difference
    direction, allowed = "rise" if lower_is_better else "fall", with_unit(figure, shown(figure, margin), change=True)
    message = f"{name}: found {with_unit(figure, describe(change), change=True)}; it may {direction} by {allowed}"
    return Rule(kind="regression", figure=figure, passed=loss <= margin, message=message)


def _gain(change: Interval, minimum: float) -> Rule:
    figure, name = change.metric, heading_of(change.metric)
    if change.difference is None or change.low is None:
        return Rule(kind="gain", figure=figure, passed=False, message=f"{name}: nothing to measure")
    expected = shown(figure, minimum, signed=True)
    message = f"{name}: found {describe(change)} points; expected at least {expected} and an interval above zero"
    passed = change.above_zero and change.difference >= minimum
    return Rule(kind="gain", figure=figure, passed=passed, message=message)
