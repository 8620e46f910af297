"""The recipe of an experiment that says nothing but its data.

It is that of configs/christchurch.yaml, whose figures are in the documentation: measured on aerial imagery of 7.5 cm,
where stage 2 gained most. A section that a file leaves out is taken from here as a whole; in a section that it has,
keys that it leaves out take their own defaults.
"""

from __future__ import annotations

from typing import Any

RECIPE: dict[str, dict[str, Any]] = {
    "coarse": {
        "decoder": "Unet",
        "encoder": "tu-tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0",
        "window": 192,
        "dice_weight": 1.0,
        "folds": 2,
        "fold_block": 512,
    },
    "refiner": {
        "coarse_input": "probabilities",
        "patch": 4,
        "window": 128,
        "channels": [48, 64, 96],
        "guidance_width": 32,
        "guidance_heads": 2,
        "condition_depth": 2,
        "image_encoder": "tf_efficientnet_lite0",
        "image_encoder_levels": [0, 1, 2],
        "prediction": "label",
        "dice_weight": 1.0,
        "correction": True,
        "self_conditioning": False,
        "schedule": "cosine",
        "timestep_sampling": "cubic",
    },
    "sampler": {
        "steps": 1,
        "samples": 4,
        "spacing": "trailing",
        "dihedral": True,
        "mean_field": {"rounds": 10, "weight": 3.0, "smooth_weight": 3.0, "colour": 0.3},
        "coarse_vote": 0.5,
    },
    "training": {
        "coarse": {
            "augmentation": {
                "rotation": 20,
                "scale": 0.3,
                "band_mix": 0.2,
                "brightness": 0.5,
                "contrast": 0.3,
                "band_jitter": 0.4,
            },
            "steps": 300,
            "batch": 8,
            "lr": 0.001,
            "precision": "auto",
            "validate_every": 150,
        },
        "refiner": {
            "steps": 500,
            "batch": 8,
            "lr": 0.0005,
            "ema": 0.99,
            "precision": "auto",
            "validate_every": 250,
            "augmentation": {"brightness": 0.5, "contrast": 0.3, "band_jitter": 0.4},
        },
    },
    "inference": {
        "coarse": {"window": 512, "overlap": 256, "batch": 1},
        "refiner": {"window": 256, "overlap": 64, "batch": 2},
        "precision": "auto",
    },
}
"""Section -> keys, as a file would have them."""
