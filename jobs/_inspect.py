"""What jobs/inspect.py does; that file has to stay small, see there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from idgbr.cli import JobFlags, Switch, run_job


class Flags(JobFlags):
    """Flags of inspection."""

    images: list[str] = Field(min_length=1)
    """Files, folders or globs (in quotes) of images: local, s3:// or gs://."""
    labels: list[str] = []
    """Files, folders or globs of labels: rasters, or polygons."""
    write: str = ""
    """Write an experiment to this YAML file; needs labels."""
    name: str = ""
    """Name of the data set; default: that of the file of --write, or of the images' folder."""
    force: Switch = False
    """Write over a file that is there."""


def main(flags: Flags) -> dict[str, Any]:
    """Inspects."""
    from rich.console import Console

    from idgbr.datasets.inspection import inspect_data
    from idgbr.datasets.label_checks import refuse_errors
    from idgbr.errors import UserError
    from idgbr.raster.imagery import lines_of

    if flags.write and not flags.labels:
        raise UserError("--write: an experiment needs labels; name them with --labels")
    if flags.write and Path(flags.write).exists() and not flags.force:
        raise UserError(f"--write: {flags.write} is there already; choose another name, or say --force")
    inspection = inspect_data(flags.images, flags.labels, flags.name or _name(flags))
    console = Console()
    for table in inspection.tables():
        Console(width=max(console.width, 160)).print(table)
    if inspection.proposal:
        names = ", ".join(spec["name"] for spec in inspection.proposal.classes)
        console.print(f"labels read as {names} ({inspection.proposal.why})", soft_wrap=True, highlight=False)
    for severity in ("error", "warning"):
        for line in lines_of([finding for finding in inspection.findings if finding.severity == severity]):
            console.print(f"{severity}: {line}", soft_wrap=True, highlight=False, markup=False)
    outputs: dict[str, Any] = {
        "images": inspection.files,
        "labels": len(inspection.labels),
        "data": inspection.data,
        "findings": [vars(finding) for finding in inspection.findings],
    }
    if flags.write:
        refuse_errors(inspection.findings)
        outputs |= _write(flags.write, inspection, console)
    return outputs


def _name(flags: Flags) -> str:
    import re

    place = Path(flags.write).stem if flags.write else Path(flags.images[0].rstrip("/*")).absolute().name
    return re.sub(r"[^A-Za-z0-9]+", "_", place.partition(".")[0]).strip("_").lower() or "data"


def _write(path: str, inspection: Any, console: Any) -> dict[str, Any]:
    from idgbr.config.load import load_experiment
    from idgbr.datasets.experiment_file import experiment, write_experiment
    from idgbr.training.estimate import estimated_minutes, this_machine
    from idgbr.training.feasible import refuse_infeasible

    machine = this_machine()
    tree = experiment(inspection, machine)
    head = (
        f"Written by jobs/inspect.py for {inspection.files} image(s); labels: {inspection.proposal.why}.\n"
        "The recipe is that of configs/christchurch.yaml, with steps for the amount of imagery.\n"
        f"Train and measure: python jobs/pipeline.py --config {path}"
    )
    write_experiment(path, tree, head)
    config = load_experiment(path)
    refuse_infeasible(config)
    minutes = round(estimated_minutes(config), 1)
    console.print(
        f"{path}: written; training takes about {max(1, round(minutes))} minutes on this machine "
        f"({machine.cpus} CPUs, {machine.gpus} GPUs), on an otherwise idle one",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return {"config": path, "minutes": minutes}


def run(description: str) -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, description)
