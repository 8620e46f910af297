"""Counted costs follow the settings as arithmetic says they must."""

from __future__ import annotations

from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.training import RefinerTraining
from idgbr.models.cost import refiner_cost

SETTINGS = RefinerConfig(
    window=64, channels=[16, 32], guidance_width=16, guidance_heads=2, image_encoder="", self_conditioning=False
)
PLAIN = {"samples": 1, "dihedral": False}


def test_a_step_more_and_a_sample_more_cost_what_they_do() -> None:
    one, two, guided, samples = (
        refiner_cost(SETTINGS, 3, 3, SamplerConfig(**{**PLAIN, "steps": 1, **keys})).tile_flop
        for keys in ({}, {"steps": 2}, {"guidance": 2.0}, {"samples": 2})
    )
    step = two - one
    assert 0 < step < one < guided < one + step  # the unguided prediction shares the way down
    assert samples == one + step  # conditions are shared where samples are not turned
    half = refiner_cost(SETTINGS, 3, 3, SamplerConfig(steps=2, guidance=2.0, guidance_interval=[0, 0.5], **PLAIN))
    assert half.tile_flop == guided + step


def test_memory_grows_with_the_batch_and_shrinks_with_checkpointing() -> None:
    cost = refiner_cost(SETTINGS, 3, 3, SamplerConfig())
    assert 0 < cost.checkpointed < cost.activations
    assert cost.step_flop > 3 * cost.recomputed_flop > 0
    training = RefinerTraining(ema=0.0)
    one, two = (cost.training_bytes(batch, training, half=False, checkpointing=False) for batch in (1, 2))
    assert two - one == cost.activations
    trained = sum(part.trained for part in cost.parts)
    eight = cost.training_bytes(1, RefinerTraining(ema=0.0, optimiser="adamw8bit"), half=False, checkpointing=False)
    assert one - eight == 6 * trained
