"""Metrics for Prometheus, by deployment and replica (Ray adds these tags)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ray.serve import metrics

from serve_apps.model_shelf import ShelfStatus

_MILLISECONDS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000, 120000]
_REPEAT_S = 10.0
"""Ray's exporter drops a gauge that nobody set for about a minute."""


class StageMetrics:
    """Metrics of a stage, or of the scene workers' own work."""

    def __init__(self) -> None:
        # Ray's annotations know tags of one name only.
        gauge: Any = metrics.Gauge
        counter: Any = metrics.Counter
        model = gauge("idgbr_model_state", "1 for the version a replica serves or should serve", ("model", "state"))
        failed = metrics.Gauge("idgbr_model_load_failed", "1 while the desired version does not load")
        queue = metrics.Gauge("idgbr_queue_windows", "windows that wait for the model", ("stage",))
        self._model, self._failed, self._queue = (RepeatedGauge(one.set) for one in (model, failed, queue))
        self.latency = metrics.Histogram(
            "idgbr_stage_latency_ms", "milliseconds of the step of the work in the tag", _MILLISECONDS, ("stage",)
        )
        self.batch = metrics.Histogram(
            "idgbr_batch_windows", "windows predicted at once", [1.0, 2, 4, 8, 16, 32, 64, 128], ("stage",)
        )
        self.windows = counter("idgbr_windows_total", "windows predicted", ("stage", "model"))
        self.pixels = counter("idgbr_class_pixels_total", "pixels of the maps sent", ("model", "class"))
        self.requests = counter("idgbr_requests_total", "requests by outcome", ("route", "status"))

    def show_queue(self, windows: int, stage: str) -> None:
        """Sets how many windows wait for the model of a stage."""
        self._queue.set(windows, {"stage": stage})

    def show_model(self, status: ShelfStatus) -> None:
        """Sets the active and the desired version, and whether the latter loads."""
        now = {(name, state) for state in ("active", "desired") if (name := getattr(status, state))}
        before = {(tags["model"], tags["state"]) for tags in self._model.tags()}
        for model, state in before | now:
            self._model.set(float((model, state) in now), {"model": model, "state": state})
        self._failed.set(1.0 if status.error else 0.0, {})


class RepeatedGauge:
    """A gauge whose values are exported for as long as the process lives.

    Args:
        export: sets one value under its tags.
        repeat_s: seconds between two exports of the same value.
    """

    def __init__(self, export: Callable[[float, dict[str, str]], None], repeat_s: float = _REPEAT_S) -> None:
        self._export, self._repeat_s = export, repeat_s
        self._values: dict[tuple[tuple[str, str], ...], float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._repeat, daemon=True).start()

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Exports a value, now and again and again."""
        with self._lock:
            self._values[tuple(sorted(tags.items()))] = value
            self._export(value, tags)

    def tags(self) -> list[dict[str, str]]:
        """Tags under which there are values."""
        with self._lock:
            return [dict(key) for key in self._values]

    def _repeat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._repeat_s):
            with self._lock:
                for tags, value in self._values.items():
                    self._export(value, dict(tags))
