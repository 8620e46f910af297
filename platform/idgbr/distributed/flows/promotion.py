"""Promotion: the challenger through the gate, and the aliases after it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from rich.console import Console

from idgbr.config.tree import Experiment
from idgbr.distributed.flows.gate import GateScenes, gate_scenes, judge, measure, refuse_seen
from idgbr.distributed.folders import Folders
from idgbr.distributed.session import start_ray
from idgbr.errors import Refused, UserError
from idgbr.evaluation.verdict import Verdict
from idgbr.models.description import load_spec
from idgbr.registry.aliases import CHAMPION, VERDICT_TAG, WHY_TAG, aliases, install
from idgbr.registry.lock import promotion_lock
from idgbr.registry.store import connect
from idgbr.registry.verdicts import RUN_TAG, record
from idgbr.registry.versions import CHALLENGER, CONTENT_TAG, resolve

_ROUNDS = 3
"""Number of measurements that a change of aliases may interrupt before the promotion fails."""


@dataclass(frozen=True)
class Promotion:
    """Outcome of a promotion."""

    champion: str
    """models:/NAME/VERSION."""
    report: str
    """Run that holds verdict and report: runs:/ID."""

    def outputs(self) -> dict[str, str]:
        """The outputs of a job's last line."""
        return {"champion": self.champion, "report": self.report}


@dataclass(frozen=True)
class _Roles:
    """State of the store before the measurement; it has to be the same under the lock."""

    challenger: str
    champion: str | None
    run: str | None
    """The run of the challenger's last gate."""


def promote(config: Experiment, name: str) -> Promotion:
    """Measure the challenger against the champion; it becomes champion if it passes every rule of the gate.

    Measuring takes minutes and holds no lock, so that a rollback never waits for it. Verdict and aliases are written
    under the lock, if the store is unchanged; otherwise the measurement starts again with the new state. A verdict that
    another process wrote for the same version in the meantime stands, and is the result here too.

    Args:
        config: the gate, and the data, tracking and resources to measure with.
        name: the registered model.

    Raises:
        Refused: the challenger failed a rule; its version is tagged and holds the report.
        UserError: no challenger, scenes that a model has seen, or another promotion that does not end.
    """
    client = connect(config.tracking.uri)
    judged: str | None = None
    with start_ray(config.resources):
        seen = _look(client, name)
        if seen is None:
            raise UserError(_no_challenger(client, name))
        scenes = gate_scenes(config, Folders(Path(config.resources.storage).resolve()).data)
        for _ in range(_ROUNDS):
            judged = seen.challenger
            with tempfile.TemporaryDirectory(prefix="idgbr-gate-") as folder:
                verdict = _measure(client, config, name, seen, scenes, Path(folder))
                with promotion_lock(config.tracking.uri, name):
                    roles = _look(client, name)
                    if roles == seen:
                        return _settle(client, config, name, verdict, Path(folder))
            if promotion := _verdict_meanwhile(client, name, judged, seen.run):
                return promotion
            if roles is None:
                raise UserError(_no_challenger(client, name))
            seen = roles
    raise UserError(
        f"{name}: its aliases changed {_ROUNDS} times while it was measured; try again when no other promotion runs"
    )


def recorded_experiment(name: str, uri: str) -> Experiment:
    """The experiment whose gate a promotion without a configuration uses.

    It is the champion's, so that no challenger chooses its own gate, or the challenger's where there is no champion.

    Raises:
        UserError: the version's run holds no configuration that this package version reads.
    """
    client = connect(uri)
    roles = aliases(client, name)
    version = roles.get(CHAMPION) or roles.get(CHALLENGER)
    if version is None:
        raise UserError(_no_challenger(client, name))
    advice = "name the gate's configuration with --config"
    try:
        run = client.get_model_version(name, version).run_id or ""
        content = Path(client.download_artifacts(run, "config.json")).read_text(encoding="utf-8")
        experiment = Experiment.model_validate(json.loads(content))
    except (MlflowException, OSError) as error:
        raise UserError(f"{name}/{version}: its run holds no configuration ({error}); {advice}") from error
    except ValidationError as error:
        raise UserError(f"{name}/{version}: its run's configuration cannot be read ({error}); {advice}") from error
    return experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update={"uri": uri})})


def _look(client: MlflowClient, name: str) -> _Roles | None:
    """The challenger and the champion of this moment; None without a challenger that is not champion already."""
    roles = aliases(client, name)
    challenger, champion = roles.get(CHALLENGER), roles.get(CHAMPION)
    if challenger is None or challenger == champion:
        return None
    return _Roles(challenger, champion, client.get_model_version(name, challenger).tags.get(RUN_TAG))


def _measure(
    client: MlflowClient, config: Experiment, name: str, seen: _Roles, scenes: GateScenes, folder: Path
) -> Verdict:
    versions = {"champion": seen.champion, "challenger": seen.challenger}
    labels = {role: f"{name}/{version}" for role, version in versions.items() if version is not None}
    folders = {role: resolve(f"models:/{label}", config.tracking.uri)[0] for role, label in labels.items()}
    for role, model in folders.items():
        _refuse_other_task(config, model, labels[role])
    refuse_seen(scenes, {labels[role]: model for role, model in folders.items()})
    measured = {}
    for role, label in labels.items():
        tags = client.get_model_version(*label.rsplit("/", 1)).tags
        content = tags.get(CONTENT_TAG, label)
        measured[role] = measure(config, scenes, folders[role], label, content, folder / role)
    verdict = judge(config, scenes, measured["challenger"], measured.get("champion"))
    console = Console()
    Console(width=max(console.width, 110)).print(verdict.table())
    return verdict


def _refuse_other_task(config: Experiment, folder: Path, label: str) -> None:
    spec = load_spec(folder)
    own, theirs = [c.name for c in config.data.classes], [c.name for c in spec.classes]
    bands = len(spec.normalisation.mean)
    if own != theirs or bands != len(config.data.bands):
        raise UserError(
            f"{label}: has the classes {', '.join(theirs)} and {bands} bands; the gate's data have "
            f"{', '.join(own)} and {len(config.data.bands)} bands. A gate compares models of one task"
        )


def _settle(client: MlflowClient, config: Experiment, name: str, verdict: Verdict, folder: Path) -> Promotion:
    """Verdict, then aliases; under the lock."""
    report = f"runs:/{record(client, config, verdict, folder)}"
    version = verdict.challenger.model.rpartition("/")[2]
    if not verdict.passed:
        raise Refused(_refusal(name, version, verdict.reasons, report), {"report": report})
    install(client, name, version, verdict.summary())
    return Promotion(f"models:/{name}/{version}", report)


def _verdict_meanwhile(client: MlflowClient, name: str, version: str, run: str | None) -> Promotion | None:
    """The verdict that another process wrote for a version after the gate run `run`."""
    tags = client.get_model_version(name, version).tags
    if tags.get(RUN_TAG) == run or VERDICT_TAG not in tags:
        return None
    report = f"runs:/{tags[RUN_TAG]}"
    if tags[VERDICT_TAG] == "refused":
        raise Refused(_refusal(name, version, [tags[WHY_TAG]], report), {"report": report})
    return Promotion(f"models:/{name}/{version}", report)


def _refusal(name: str, version: str, reasons: list[str], report: str) -> str:
    lines = "\n".join(f"  {reason}" for reason in reasons)
    return f"{name}/{version} is refused:\n{lines}\nreport: {report}"


def _no_challenger(client: MlflowClient, name: str) -> str:
    champion = aliases(client, name).get(CHAMPION)
    standing = f"version {champion} is champion" if champion else "there is no champion either"
    return f"{name}: no version waits as challenger ({standing}); jobs/train.py and jobs/pipeline.py register one"
