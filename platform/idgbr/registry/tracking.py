"""Tracked runs: one parent run per command and a child run per stage, resumed by name and always terminated."""

from __future__ import annotations

import getpass
import json
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from pydantic import BaseModel

from idgbr.config.tree import TrackingConfig
from idgbr.redaction import redacted
from idgbr.registry import watch
from idgbr.registry.provenance import commit, flatten, versions
from idgbr.registry.store import absolute_uri, connect, experiment_id

_PARENT_TAG = "mlflow.parentRunId"
_BATCH = 100
"""Largest number of params or tags that the store accepts in one call; for metrics it is ten times as many."""


def log_metrics(run_id: str, uri: str, step: int, metrics: Mapping[str, float]) -> None:
    """Logs metrics from any process.

    Args:
        run_id: The run, as `StageRun.run_id`.
        uri: The store, as `Tracker.uri`.
        step: Optimiser step the figures belong to.
        metrics: Value by name.
    """
    now = int(time.time() * 1000)
    connect(uri).log_batch(run_id, metrics=[Metric(_name(key), float(v), now, step) for key, v in metrics.items()])


class StageRun:
    """A run to log to. Secrets in params, tags and texts are masked before they are logged.

    Attributes:
        run_id: MLflow's id.
        uri: The store, absolute, for `log_metrics` in other processes.
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str) -> None:
        """Wraps an existing run."""
        self.client, self.uri, self.run_id = client, uri, run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics at a step."""
        log_metrics(self.run_id, self.uri, step, metrics)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs params. A param is written once: a resumed run keeps the first value of a param that has changed."""
        known = self.client.get_run(self.run_id).data.params
        new = [Param(_name(key), redacted(str(value))) for key, value in params.items() if _name(key) not in known]
        for start in range(0, len(new), _BATCH):
            self.client.log_batch(self.run_id, params=new[start : start + _BATCH])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; they may change."""
        self.client.log_batch(self.run_id, tags=[RunTag(key, redacted(str(value))) for key, value in tags.items()])

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copies a file into the run's artifacts."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def log_artifacts(self, path: str | Path, folder: str | None = None) -> None:
        """Copies a folder's content into the run's artifacts."""
        self.client.log_artifacts(self.run_id, str(path), folder)

    def log_figure(self, figure: Any, name: str) -> None:
        """Keeps a matplotlib figure as an artifact, for example `samples.png`."""
        self.client.log_figure(self.run_id, figure, name)

    def log_text(self, text: str, name: str) -> None:
        """Keeps a text as an artifact."""
        self.client.log_text(self.run_id, redacted(text), name)


class Tracker(StageRun):
    """The parent run of one command. Use as a context manager in the driver.

    A run with the same name is continued, whatever its status. At the end its status is FINISHED, FAILED (an exception)
    or KILLED (a signal, also one that cannot be caught).
    """

    def __init__(
        self,
        tracking: TrackingConfig,
        name: str,
        config: BaseModel | None = None,
        fingerprint: str = "",
        tags: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        """Prepares a tracker; `__enter__` is the first access to the store.

        Args:
            tracking: Store and experiment.
            name: Name of the run, derived from its settings and data.
            config: Configuration to log as params and as `config.json`.
            fingerprint: Fingerprint of the data.
            tags: More tags of the parent run.
            fresh: Open a new run even if one with this name exists.
        """
        self.uri = absolute_uri(tracking.uri)
        self.name = name
        self._experiment, self._config, self._fingerprint = tracking.experiment, config, fingerprint
        self._tags, self._fresh = dict(tags or {}), fresh
        self._owner = uuid.uuid4().hex
        self._open: list[str] = []
        self._watch: subprocess.Popen[str] | None = None
        self._previous: Any = None

    def __enter__(self) -> Tracker:
        self.client = connect(self.uri)
        self._experiment_id = experiment_id(self.client, self.uri, self._experiment)
        self._watch = watch.start(self.uri, self._owner)
        # Without a handler, SIGTERM ends the process immediately, without running any `finally` block.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            self.run_id = self._begin(self.name, None)
            self._describe()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    @contextmanager
    def stage(self, name: str, params: Mapping[str, Any] | None = None) -> Iterator[StageRun]:
        """Open a child run, which is resumed by its name like the parent.

        Args:
            name: The stage, for example "refiner".
            params: Params of the stage.

        Yields:
            The child run; it ends with the block.
        """
        child = StageRun(self.client, self.uri, self._begin(name, self.run_id))
        try:
            child.log_params(params or {})
            yield child
        except BaseException as error:
            self._end(child.run_id, error)
            raise
        self._end(child.run_id, None)

    def _begin(self, name: str, parent: str | None) -> str:
        run = None if self._fresh and parent is None else self._find(name, parent)
        now = int(time.time() * 1000)
        tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "idgbr", watch.OWNER_TAG: self._owner}
        if run is None:
            tags |= {_PARENT_TAG: parent} if parent else {}
            run = self.client.create_run(self._experiment_id, start_time=now, tags=tags, run_name=name)
        else:
            resumed = int(run.data.tags.get("idgbr.resumed", 0)) + 1
            tags["idgbr.resumed"] = str(resumed)
            self.client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            self.client.update_run(run.info.run_id, status="RUNNING")
        run_id: str = run.info.run_id
        self._open.append(run_id)
        self._tell_watch(run_id)
        return run_id

    def _find(self, name: str, parent: str | None) -> Run | None:
        quoted = name.replace("'", "\\'")
        query = f"attributes.run_name = '{quoted}'" + (f" and tags.`{_PARENT_TAG}` = '{parent}'" if parent else "")
        found = self.client.search_runs([self._experiment_id], query, order_by=["attributes.start_time DESC"])
        return next((run for run in found if run.data.tags.get(_PARENT_TAG) == parent), None)

    def _describe(self) -> None:
        found = versions()
        self.set_tags(
            {f"version.{name}": version for name, version in found.items()}
            | {"mlflow.source.git.commit": commit(), "data.fingerprint": self._fingerprint or "unknown"}
            | self._tags
        )
        if self._config is not None:
            self.log_params(flatten(self._config))
            self.log_text(json.dumps(self._config.model_dump(mode="json"), indent=2), "config.json")

    def _end(self, run_id: str, error: BaseException | None) -> None:
        self._open.remove(run_id)
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        self.client.set_terminated(run_id, status)

    def _leave(self, error: BaseException | None) -> None:
        try:
            for run_id in reversed(list(self._open)):
                self._end(run_id, error)
            self._tell_watch("done")
        finally:
            if self._watch is not None and self._watch.stdin is not None:
                self._watch.stdin.close()
                self._watch.wait()
            if self._previous is not None:
                signal.signal(signal.SIGTERM, self._previous)
                self._previous = None

    def _tell_watch(self, line: str) -> None:
        if self._watch is not None and self._watch.stdin is not None:
            try:
                self._watch.stdin.write(f"{line}\n")
                self._watch.stdin.flush()
            except BrokenPipeError:
                # The watch process is only a fallback: its failure must not end a training.
                self._watch = None


def _name(key: str) -> str:
    """A key with only the characters that the store accepts: letters, digits and a few signs."""
    return re.sub(r"[^\w\-./ ]", "_", key)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
