"""Put the challenger of a registered model through the gate; it becomes champion only if it passes.

    python jobs/promote.py --model idgbr-demo
    python jobs/promote.py --model idgbr-kampala --config configs/kampala.yaml
    python jobs/promote.py --model idgbr-demo --status
    python jobs/promote.py --model idgbr-demo --rollback
    ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- \
        python jobs/promote.py --model idgbr-kampala --config configs/kampala.yaml

Challenger and champion are measured on the gate's scenes, which neither may have seen; a running endpoint follows the
alias. Ends with 1 where the challenger is refused: its version then holds the report and says why. Without --config the
gate is the one of the experiment that made the champion.
"""

from __future__ import annotations

from typing import NoReturn

from pydantic import Field

from idgbr.cli import ExperimentFlags, Switch, run_job
from idgbr.config.tree import Experiment, TrackingConfig
from idgbr.errors import UserError


class Flags(ExperimentFlags):
    """Flags of promotion."""

    model: str = ""
    """The registered model; empty: the one that --config trains."""
    config: str = ""
    """YAML file of the experiment that holds the gate."""
    rollback: Switch = False
    """Put the previous champion back."""
    status: Switch = False
    """Show who is champion, challenger and previous, since when and why."""
    tracking_uri: str = Field("", alias="tracking-uri")
    """MLflow store; empty: that of --config, or sqlite:///mlflow.db."""


def main(flags: Flags, experiment: Experiment | None = None) -> dict[str, object]:
    """Promotes, rolls back or shows."""
    if flags.rollback and flags.status:
        raise UserError("--rollback and --status are two things to do; give one of them")
    tracking = experiment.tracking if experiment else TrackingConfig()
    uri = flags.tracking_uri or tracking.uri
    name = flags.model or (tracking.model_name or f"idgbr-{experiment.data.name}" if experiment else "")
    if not name:
        raise UserError("--model: missing; name the registered model, or the experiment that trains it with --config")
    if flags.status:
        return _status(name, uri)
    if flags.rollback:
        from idgbr.registry.aliases import roll_back

        off, champion = roll_back(uri, name)
        print(f"{name}: version {champion} is champion again, version {off} is off")
        return {"champion": f"models:/{name}/{champion}"}
    from idgbr.distributed.flows.promotion import promote, recorded_experiment

    gate = experiment or recorded_experiment(name, uri)
    done = promote(gate.model_copy(update={"tracking": gate.tracking.model_copy(update={"uri": uri})}), name)
    print(f"{done.champion} is champion; report: {done.report}")
    return dict(done.outputs())


def _status(name: str, uri: str) -> dict[str, object]:
    from rich.console import Console

    from idgbr.registry.aliases import status, status_table

    roles = status(uri, name)
    Console(width=max(Console().width, 120)).print(status_table(name, roles))
    return {role.role: vars(role) for role in roles}


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, __doc__)


if __name__ == "__main__":
    run()
