"""The two stages and their coarse maps, as one experiment trains them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from idgbr.config.training import StageTraining
from idgbr.config.tree import Experiment
from idgbr.datasets.draws import DrawPlan
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.data import PreparedData, prepare_all
from idgbr.distributed.fitting.stage import StageResult, StageSpec, TaskSpec, TrackedRun, run_name
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.folders import Folders
from idgbr.distributed.mapping.coarse_maps import coarse_maps, deal_folds, held_out_maps
from idgbr.distributed.source import PlannedWindows
from idgbr.evaluation.curves import learning_curve
from idgbr.files import hash_file, hash_text
from idgbr.models.coarse import build_coarse
from idgbr.models.description import ModelSpec
from idgbr.models.package import build_refiner, has_part, save_model
from idgbr.registry.provenance import commit, versions
from idgbr.registry.tracking import Tracker
from idgbr.training.alignment import BACKBONE

_COARSE_MAPS_VERSION = 1
"""Raised when the same model makes other coarse maps than before, so that earlier ones are not used again."""


@dataclass(frozen=True)
class Trained:
    """Both stages, done."""

    coarse: StageResult
    refiner: StageResult
    data: PreparedData
    """Every region with its coarse map."""


class TwoStageTraining:
    """Trains both stages of an experiment on prepared data; what was finished before is not done again."""

    def __init__(
        self, config: Experiment, data: PreparedData, tracker: Tracker, fresh: bool = False, start: str = ""
    ) -> None:
        """Binds the stages to an experiment.

        Args:
            config: the experiment.
            data: its data.
            tracker: the open parent run.
            fresh: forget earlier runs of the same name.
            start: model folder that both stages start from; empty for none.
        """
        self.config, self.data, self.tracker, self.fresh, self.start = config, data, tracker, fresh, start
        self.folders = Folders(Path(config.resources.storage).resolve())

    def train(self) -> Trained:
        """Stage 1 with its folds, coarse maps of every region, stage 2."""
        coarse, data = self.coarse()
        return Trained(coarse, self.refiner(coarse, data), data)

    def coarse(self) -> tuple[StageResult, PreparedData]:
        """Stage 1; the data comes back with coarse maps."""
        config, train = self.config, self.data.split("train")
        coarse = self._stage("coarse", "coarse", train, config.training.coarse, {})
        others = [region for region in self.data.prepared if region.split != "train"]
        maps = self.folders.maps(f"{coarse.name}-{self._inference_key()}")
        if self.fresh:
            shutil.rmtree(maps, ignore_errors=True)
        folds = config.coarse.folds
        if folds:
            mapped = self._held_out(train, maps / f"folds{folds}x{config.coarse.fold_block}x{self._fold_steps()}")
        else:
            mapped = coarse_maps(train, self.model_folder(coarse), maps, config, "coarse maps, train")
        mapped += coarse_maps(others, self.model_folder(coarse), maps, config, "coarse maps, select and test")
        by_id = {region.id: region for region in mapped}
        return coarse, replace(self.data, prepared=tuple(by_id[region.id] for region in self.data.prepared))

    def refiner(self, coarse: StageResult, data: PreparedData) -> StageResult:
        """Stage 2 on the coarse maps of `data`."""
        config = self.config
        identity = {
            "coarse": coarse.name,
            "folds": [config.coarse.folds, config.coarse.fold_block, self._fold_steps()],
            "inference": self._inference_key(),
            "refiner": config.refiner.model_dump(),
            "sampler": config.sampler.model_dump(),
        }
        teacher = str(self.model_folder(coarse)) if config.training.refiner.alignment.teacher == BACKBONE else ""
        train = data.split("train")
        return self._stage("refiner", "refiner", train, config.training.refiner, identity, data, teacher)

    def model_folder(self, coarse: StageResult, refiner: StageResult | None = None) -> Path:
        """The model folder of finished stages, written if it is not there yet; without figures and sample."""
        folder = Path((refiner or coarse).folder) / "model"
        if not (folder / "model.json").exists():
            save_model(folder, self.spec(refiner is not None), *self.modules(coarse, refiner))
        return folder

    def spec(self, refined: bool, **extra: Any) -> ModelSpec:
        """The description of the experiment's model."""
        config = self.config
        return ModelSpec(
            name=config.tracking.model_name or f"idgbr-{config.data.name}",
            classes=config.data.classes,
            bands=config.data.bands,
            gsd=self.data.gsd,
            normalisation=self.data.normalisation,
            values=self.data.values,
            inference=config.inference,
            sampler=config.sampler,
            coarse=config.coarse,
            refiner=config.refiner if refined else None,
            provenance={
                "fingerprint": self.data.fingerprint,
                "licence": config.data.licence,
                "commit": commit(),
                **versions(),
            },
            **extra,
        )

    def modules(self, coarse: StageResult, refiner: StageResult | None) -> tuple[Any, Any]:
        """The trained backbone and refiner."""
        config, bands, classes = self.config, len(self.data.normalisation.mean), len(self.config.data.classes)
        backbone = build_coarse(config.coarse, classes, bands, pretrained=False)
        backbone.load_state_dict(torch.load(coarse.weights, map_location="cpu", weights_only=True))
        if refiner is None:
            return backbone, None
        refiner_model = build_refiner(classes, bands, config.refiner, False, self.start or None)
        refiner_model.load_state_dict(torch.load(refiner.weights, map_location="cpu", weights_only=True))
        return backbone, refiner_model

    def _held_out(self, train: Sequence[PreparedRegion], folder: Path) -> list[PreparedRegion]:
        config = self.config
        regions = [region for region in self.data.regions if region.split == "train"]
        pieces = deal_folds(regions, config.coarse)
        if all((folder / f"{region.id}.tif").exists() for region in train):
            return held_out_maps(train, pieces, [], folder, config)
        prepared = prepare_all([piece.region for piece in pieces], config.data, self.folders.data)
        models = []
        for fold in range(config.coarse.folds):
            others = [p for piece, p in zip(pieces, prepared, strict=True) if piece.fold != fold]
            identity = {"fold": [fold, config.coarse.folds, config.coarse.fold_block]}
            training = config.training.coarse.model_copy(update={"steps": self._fold_steps()})
            result = self._stage("coarse", f"coarse-fold{fold}", others, training, identity)
            models.append(self.model_folder(result))
        return held_out_maps(train, pieces, models, folder, config)

    def _fold_steps(self) -> int:
        config, steps = self.config.coarse, self.config.training.coarse.steps
        return config.fold_steps or max(1, round(steps * (config.folds - 1) / max(1, config.folds)))

    def _stage(
        self,
        kind: Literal["coarse", "refiner"],
        stage: str,
        train: Sequence[PreparedRegion],
        training: StageTraining,
        identity: dict[str, Any],
        data: PreparedData | None = None,
        backbone: str = "",
    ) -> StageResult:
        config, data = self.config, data or self.data
        model = config.coarse.model_dump(exclude={"folds", "fold_block", "fold_steps"}) if kind == "coarse" else {}
        augmentation = training.augmentation or config.data.augmentation
        common = {
            "fingerprint": data.fingerprint,
            "bands": config.data.bands,
            "classes": [spec.name for spec in config.data.classes],
            "model": model,
            "training": training.model_dump(),
            "augmentation": augmentation.model_dump(),
            "sampling": config.data.sampling.model_dump(),
            "start": _content(self.start),
        }
        name = run_name(config.data.name, stage, {**common, **identity})
        # A folder converted from other checkpoints has a refiner only: stage 1 then begins as it does without it.
        init = self.start if self.start and has_part(self.start, kind) else None
        spec = stage_spec(name, kind, stage, config, train, data, training, init, backbone)
        settings = {"run": name, "window": spec.windows.plan.window, **training.model_dump()}
        with self.tracker.stage(stage, settings) as run:
            tracked = replace(spec, tracking=TrackedRun(run.uri, run.run_id))
            result = run_stage(tracked, config.resources, str(self.folders.training), self.fresh)
            run.log_metrics({"best_select_miou": result.miou, "seconds": result.seconds}, result.best_step)
            run.log_figure(learning_curve(stage, result.history), "learning_curve.png")
        return result

    def _inference_key(self) -> str:
        text = f"{_COARSE_MAPS_VERSION} {self.config.inference.model_dump_json(include={'coarse', 'precision'})}"
        return hash_text(text, 6)


def stage_spec(
    name: str,
    kind: Literal["coarse", "refiner"],
    stage: str,
    config: Experiment,
    train: Sequence[PreparedRegion],
    data: PreparedData,
    training: StageTraining,
    init: str | None = None,
    backbone: str = "",
) -> StageSpec:
    """A training run of one of the two stages.

    Args:
        name: of the run.
        kind: which network.
        stage: short name in progress lines.
        config: the experiment.
        train: regions to learn from; for the refiner with coarse maps.
        data: the data set, for its select split and its normalisation.
        training: steps, rates and the rest.
        init: weights to start from, see `TaskSpec.init`.
        backbone: see `TaskSpec.backbone`.
    """
    window = config.coarse.window if kind == "coarse" else config.refiner.window
    augmentation = training.augmentation or config.data.augmentation
    return StageSpec(
        name=name,
        stage=stage,
        task=TaskSpec(kind, config, len(data.normalisation.mean), data.normalisation, backbone, init),
        training=training,
        windows=PlannedWindows(
            DrawPlan(train, config.data.sampling, augmentation, window, training.seed), training.batch
        ),
        select=data.split("select"),
        normalisation=data.normalisation,
        augmentation=augmentation,
        seed=training.seed,
        classes=len(config.data.classes),
    )


def _content(folder: str) -> str:
    """What a model folder holds, hashed: the same model fetched to another place is the same start."""
    weights = sorted(Path(folder).rglob("*.safetensors")) if folder else []
    return hash_text(" ".join(map(hash_file, weights))) if weights else ""
