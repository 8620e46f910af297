"""What Prometheus sees, per deployment and replica (Ray adds these tags): see "Metrics" in the README."""

from __future__ import annotations

from typing import Any

from ray.serve import metrics

from serve_apps.model_shelf import ShelfStatus

_MILLISECONDS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000, 120000]


class StageMetrics:
    """Figures of a stage, or of the scene workers' own work."""

    def __init__(self) -> None:
        # Ray's annotations know tags of one name only.
        gauge: Any = metrics.Gauge
        counter: Any = metrics.Counter
        self._model = gauge(
            "idgbr_model_state", "1 for the version a replica serves or should serve", ("model", "state")
        )
        self._failed = metrics.Gauge("idgbr_model_load_failed", "1 while the desired version does not load")
        self._shown: set[tuple[str, str]] = set()
        self.latency = metrics.Histogram(
            "idgbr_stage_latency_ms", "time of a stage, of which the tag says", _MILLISECONDS, ("stage",)
        )
        self.batch = metrics.Histogram(
            "idgbr_batch_windows", "windows predicted at once", [1.0, 2, 4, 8, 16, 32, 64, 128], ("stage",)
        )
        self.queue = metrics.Gauge("idgbr_queue_windows", "windows that wait for the model", ("stage",))
        self.windows = counter("idgbr_windows_total", "windows predicted", ("stage", "model"))
        self.pixels = counter("idgbr_class_pixels_total", "pixels of the maps sent", ("model", "class"))
        self.requests = counter("idgbr_requests_total", "requests by outcome", ("route", "status"))

    def show_model(self, status: ShelfStatus) -> None:
        """Which version is active and desired."""
        now = {(name, state) for state in ("active", "desired") if (name := getattr(status, state))}
        for model, state in self._shown - now:
            self._model.set(0, {"model": model, "state": state})
        for model, state in now:
            self._model.set(1, {"model": model, "state": state})
        self._shown |= now
        self._failed.set(1.0 if status.error else 0.0)
