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
"""How often the aliases may change under a measurement before somebody has to look."""


@dataclass(frozen=True)
class Promotion:
    """How a promotion ended."""

    champion: str
    """models:/NAME/VERSION."""
    report: str
    """Where verdict and report are: runs:/ID."""

    def outputs(self) -> dict[str, str]:
        """What a job's last line holds."""
        return {"champion": self.champion, "report": self.report}


@dataclass(frozen=True)
class _Seen:
    """What the store said before anything was measured; it has to say the same under the lock."""

    challenger: str
    champion: str | None
    run: str | None
    """The run of the challenger's last gate."""


def promote(config: Experiment, name: str) -> Promotion:
    """Measures the challenger against the champion; it becomes champion if it passes every rule of the gate.

    Measuring takes minutes and holds no lock, so that a rollback never waits for it. Verdict and aliases are written
    under the lock, if the store still says what it said before; otherwise it all begins again with what it says now. A
    verdict that another process gave on the same version in the meantime stands, and is this one's too.

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
                    found = _look(client, name)
                    if found == seen:
                        return _settle(client, config, name, verdict, Path(folder))
            if given := _given_meanwhile(client, name, judged, seen.run):
                return given
            if found is None:
                raise UserError(_no_challenger(client, name))
            seen = found
    raise UserError(f"{name}: its aliases changed {_ROUNDS} times while it was measured; try again when they are still")


def recorded_experiment(name: str, uri: str) -> Experiment:
    """The experiment whose gate a promotion without a configuration stands on: the champion's, so that no challenger
    chooses its own; the challenger's where there is no champion.

    Raises:
        UserError: the version's run holds no configuration that this version reads.
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
        found = Experiment.model_validate(json.loads(content))
    except (MlflowException, OSError) as error:
        raise UserError(f"{name}/{version}: its run holds no configuration ({error}); {advice}") from error
    except ValidationError as error:
        raise UserError(f"{name}/{version}: its run's configuration cannot be read ({error}); {advice}") from error
    return found.model_copy(update={"tracking": found.tracking.model_copy(update={"uri": uri})})


def _look(client: MlflowClient, name: str) -> _Seen | None:
    """The challenger and the champion of this moment; None without a challenger that is not champion already."""
    roles = aliases(client, name)
    challenger, champion = roles.get(CHALLENGER), roles.get(CHAMPION)
    if challenger is None or challenger == champion:
        return None
    return _Seen(challenger, champion, client.get_model_version(name, challenger).tags.get(RUN_TAG))


def _measure(
    client: MlflowClient, config: Experiment, name: str, seen: _Seen, scenes: GateScenes, folder: Path
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


def _given_meanwhile(client: MlflowClient, name: str, version: str, run: str | None) -> Promotion | None:
    """The verdict that another process gave on a version since its last gate was `run`."""
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
