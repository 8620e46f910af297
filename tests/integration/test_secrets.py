"""No secret reaches the store of runs or a job's output, whichever way a configuration got hold of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from idgbr.cli import ExperimentFlags, run_job
from idgbr.config.tree import Experiment
from idgbr.registry.tracking import Tracker

SECRET = "hunter22-correct-horse"


def experiment(folder: Path) -> Path:
    """An experiment that takes a secret from the environment, as signed links to imagery do."""
    link = "https://host/a.tif?token=${IMAGERY_TOKEN}"
    source = {"kind": "folder", "images": [link], "labels": ["${IMAGERY_TOKEN}/labels"]}
    classes = [{"name": "a", "colour": "#000000"}, {"name": "b", "colour": "#ffffff"}]
    tracking = {"uri": f"sqlite:///{folder}/mlflow.db", "model_name": f"http://me:{SECRET}@host"}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "x", "source": source, "classes": classes}, "tracking": tracking}))
    return path


def test_no_secret_reaches_the_store_or_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGERY_TOKEN", SECRET)

    def main(flags: ExperimentFlags, config: Experiment) -> dict[str, str]:
        assert SECRET in config.data.source.images[0]  # type: ignore[union-attr]  # the job itself needs it
        with Tracker(config.tracking, "run", config, tags={"from": f"s3://me:{SECRET}@host/x"}) as tracker:
            tracker.log_text(f"read with {SECRET}", "note.txt")
            with tracker.stage("coarse", {"images": config.data.source.images}):  # type: ignore[union-attr]
                pass
        raise RuntimeError(f"cannot read {config.data.source.images[0]}")  # type: ignore[union-attr]

    with pytest.raises(SystemExit) as ended:
        run_job(main, ExperimentFlags, arguments=["--config", str(experiment(tmp_path))])
    assert ended.value.code == 3
    printed = capsys.readouterr()
    assert "cannot read https://host/a.tif?token=***" in printed.err
    assert SECRET not in printed.out + printed.err
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "experiment.yaml"]
    assert {"mlflow.db", "config.json", "note.txt"} <= {path.name for path in kept}
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []
