"""Tiny models of known order of quality, the scenes of their gate, and an experiment that ties them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from toys import CLASSES, toy_region

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.config.inference import CoarseWindows, InferenceConfig, RefinerWindows
from idgbr.config.load import load_experiment
from idgbr.config.models import CoarseConfig, RefinerConfig, SamplerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.ground import tile_hashes
from idgbr.datasets.normalisation import BandStats, Normalisation
from idgbr.inference.predictor import Predictor
from idgbr.models.coarse import build_coarse
from idgbr.models.description import ModelSpec, Sample
from idgbr.models.package import save_model
from idgbr.models.refiner import Refiner
from idgbr.raster.grid import Window

NAME = "toy"
CLASS_SPECS = [ClassSpec(name=f"stripe {i}", colour=f"#{i}{i}4080") for i in range(CLASSES)]
WINDOW = 64
GATE_SCENES = 3


def trained_model(folder: Path, steps: int, seed: int = 0, name: str = NAME, bands: int = 3) -> Path:
    """A model folder whose stage 1 learnt the toy stripes for so many steps; stage 2 keeps what stage 1 says.

    The refiner is random, so the coarse map's vote outweighs it: how good the model is, is how long it learnt.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    coarse_config = CoarseConfig(decoder="FPN", encoder="tu-mobilenetv3_small_050", weights="none")
    refiner_config = RefinerConfig(
        window=32, channels=[16, 32], attention_head_dim=8, guidance_width=8, guidance_heads=1, condition_depth=1,
        image_encoder="", coarse_input="probabilities",
    )  # fmt: skip
    region = toy_region(folder, "learnt", 192, seed=100)
    pixels, valid = region.image.read(region.grid.window)
    pixels = pixels[:bands]
    label, _ = type(region.image)(region.label).read(region.grid.window)
    normalisation = Normalisation.from_stats([BandStats.of(pixels, valid)])
    coarse = build_coarse(coarse_config, CLASSES, bands, pretrained=False)
    x = torch.from_numpy(normalisation.apply(pixels[None], valid[None]))
    y = torch.from_numpy(np.where(valid, label[0], IGNORE).astype(np.int64))[None]
    optimiser = torch.optim.Adam(coarse.parameters(), 3e-3)
    coarse.train()
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(coarse(x), y, ignore_index=IGNORE).backward()
        optimiser.step()
    spec = ModelSpec(
        name=name,
        classes=CLASS_SPECS,
        bands=list(range(1, bands + 1)),
        gsd=0.5,
        normalisation=normalisation,
        inference=InferenceConfig(
            coarse=CoarseWindows(window=WINDOW, overlap=16), refiner=RefinerWindows(window=WINDOW, overlap=16)
        ),
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False, coarse_vote=20.0),
        coarse=coarse_config,
        refiner=refiner_config,
        provenance={"licence": "made up", "fingerprint": "toy"},
    )
    parts = coarse.eval(), Refiner(CLASSES, bands, refiner_config.model_dump(), pretrained=False)
    seen = tile_hashes(region)
    target = folder / "model"
    # The sample's map is the model's own, so it is saved twice.
    predictor = Predictor(save_model(target, spec, *parts, seen=seen))
    place = Window(16, 16, WINDOW, WINDOW)
    image, known = region.image.read(place)
    image = image[:bands]
    given = predictor.coarse(image[None], known[None])
    refined = predictor.refine(image[None], known[None], given, np.zeros((1, 2), np.int64))
    sample = Sample(image, refined.probabilities[0].argmax(0).astype(np.uint8))
    return save_model(target, spec, *parts, sample, seen)


def gate_scenes(folder: Path) -> Path:
    """A folder with new toy scenes for a gate."""
    scenes = folder / "gate"
    scenes.mkdir(parents=True, exist_ok=True)
    for number in range(GATE_SCENES):
        toy_region(scenes, f"scene{number}", 128, "test", seed=200 + number)
    return scenes


def gate_experiment(folder: Path, uri: str, scenes: Path, **gate: object) -> tuple[Path, Experiment]:
    """The YAML file of an experiment whose gate stands on toy scenes, and what it holds.

    Maps of the scenes are kept beside them: tests on the same scenes map with each model once.
    """
    tree = {
        "data": {
            "name": NAME,
            "source": {
                "kind": "folder",
                "images": [f"{scenes}/*_image.tif"],
                "labels": [f"{scenes}/*_label.tif"],
                "pair": "(scene\\d+)",
            },
            "classes": [spec.model_dump() for spec in CLASS_SPECS],
        },
        "evaluation": {"block": 32, "bootstrap": 200, "report_windows": 1},
        "gate": {
            "source": {
                "kind": "folder",
                "images": [f"{scenes}/*_image.tif"],
                "labels": [f"{scenes}/*_label.tif"],
                "pair": "(scene\\d+)",
            },
            "floors": {"miou": 0.1},
            "ceilings": {"megabytes": 100.0},
            "slowdown": 50.0,
            **gate,
        },
        "tracking": {"uri": uri, "model_name": NAME},
        "resources": {"storage": str(scenes.with_name("runs")), "infer_workers": 1, "cpus_per_worker": 0.5},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path, load_experiment(path)
