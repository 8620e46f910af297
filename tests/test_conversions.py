"""Checkpoints that people have, made tiny by the test, become models that train, save, load and refine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from idgbr.config.load import load_experiment
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import IMAGENET
from idgbr.errors import UserError
from idgbr.inference.predictor import Predictor
from idgbr.models.checkpoints import read_unet
from idgbr.models.description import load_spec
from idgbr.models.label_embedding import LearnedEmbedding, save_label_embedding
from idgbr.models.package import load_model, save_model
from idgbr.models.release import load_label_embedding, load_release
from idgbr.models.stable_diffusion_folder import empty_prompt, load_stable_diffusion
from idgbr.training.label_embedding import check_decodable, decode_accuracy, train_label_embedding
from idgbr.training.refiner import RefinerTask

WIDTH, TOKENS, WINDOW = 16, 8, 64
CONFIG = """
data:
  name: toy
  source: {kind: synthetic, folder: scenes}
  classes: [{name: ground, colour: "#000000"}, {name: roof, colour: "#ff0000"}, {name: road, colour: "#00ff00"}]
refiner: {codec: kl-vae, embedding: learned, condition_encoder: unet, image_encoder: "", prediction: epsilon,
          self_conditioning: false, schedule: scaled_linear, window: 64, guidance_width: 16, guidance_heads: 2}
sampler: {steps: 2, samples: 1, guidance: 3.0, spacing: leading, dihedral: false}
inference: {refiner: {window: 64, overlap: 16}}
"""


RunJob = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "toy.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def experiment(config: Path) -> Experiment:
    return load_experiment(config)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of a Stable Diffusion 1.5 folder, in its layout, with few channels and random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    levels = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16, 16), layers_per_block=2, down_block_types=levels,
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, cross_attention_dim=WIDTH, attention_head_dim=2,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), layers_per_block=1, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, norm_num_groups=2, sample_size=WINDOW,
    ).save_pretrained(folder / "vae")  # fmt: skip
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, projection_dim=WIDTH,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = {**special, "pad_token": "<|endoftext|>", "model_max_length": TOKENS}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({**tokenizer, "tokenizer_class": "CLIPTokenizer"})
    )
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model that the first test converts, for the tests after it."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def converted(stable_diffusion: Path, config: Path, models: Path, run_job: RunJob) -> Path:
    folder = models / "sd"
    if not folder.exists():
        done = run_job("convert", "sd", "--config", config, "--input", stable_diffusion, "--output", folder)
        assert done["exit_code"] == 0, done["text"]
        assert done["outputs"]["classes"] == 3
        assert "condition encoder" in done["text"]
    return folder


def batch(count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, 3, (count, WINDOW, WINDOW), generator=generator)
    return {
        "image": torch.randn(count, 3, WINDOW, WINDOW, generator=generator),
        "label": label,
        "coarse": label.roll(2, -1).unsqueeze(1).float(),
        "seed": torch.arange(count) + 17,
        "row": torch.zeros(count, dtype=torch.long),
        "col": torch.zeros(count, dtype=torch.long),
    }


def test_the_start_is_stable_diffusion_s(converted: Path, stable_diffusion: Path) -> None:
    refiner = load_model(converted).refiner
    assert refiner is not None and load_spec(converted).normalisation == IMAGENET
    unet = read_unet(stable_diffusion / "unet").state_dict()
    assert all(torch.equal(value, unet[name]) for name, value in refiner.denoiser.state_dict().items())
    assert all(torch.equal(value, unet[name]) for name, value in refiner.encoder.unet.state_dict().items())
    assert not any(name.startswith("up_blocks") for name in refiner.encoder.unet.state_dict())
    assert refiner.prompt is not None and refiner.prompt.shape == (1, TOKENS, WIDTH) and refiner.prompt.any()
    frozen = [refiner.encoder, refiner.codec]
    assert not any(p.requires_grad for part in frozen for p in part.parameters())  # type: ignore[union-attr]


def test_two_steps_save_load_refine(converted: Path, experiment: Experiment, tmp_path: Path) -> None:
    task = RefinerTask(experiment, 3, IMAGENET, str(converted))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        loss, weight = task.forward(batch())
        optimiser.zero_grad()
        (loss / weight).backward()
        optimiser.step()
    moved = {
        name.split(".")[0] for name, value in task.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"denoiser", "guidance"}

    spec = load_spec(converted)
    folder = save_model(tmp_path / "trained", spec, None, task.model)
    predictor = Predictor(folder)
    image = np.random.default_rng(0).integers(0, 255, (1, 3, WINDOW, WINDOW), np.uint8)
    coarse = np.random.default_rng(1).integers(0, 3, (1, WINDOW, WINDOW)).astype(np.uint8)
    given = (image, np.ones((1, WINDOW, WINDOW), bool), coarse, np.zeros((1, 2), np.int64))
    refined = predictor.refine(*given).probabilities
    assert refined.shape == (1, 3, WINDOW, WINDOW)
    np.testing.assert_allclose(refined.sum(1), 1, atol=1e-4)
    assert not np.allclose(refined, Predictor(converted).refine(*given).probabilities, atol=1e-6)
    with pytest.raises(UserError, match="no stage 1"):
        predictor.coarse(*given[:2])


def test_without_stable_diffusion_its_frozen_parts_would_be_random(experiment: Experiment) -> None:
    with pytest.raises(UserError, match=r"convert\.py sd"):
        RefinerTask(experiment, 3, IMAGENET)


def spoil(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = {**load_file(file), **change}
    save_file({name: value for name, value in state.items() if value is not None}, file)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet", {"conv_in.weight": None}, "conv_in.weight"),
        ("unet", {"conv_in.weight": torch.zeros(9, 4, 3, 3)}, "unet"),
        ("vae", {"quant_conv.bias": None}, "quant_conv.bias"),
    ],
)
def test_what_is_wrong_is_named(
    part: str, change: dict, message: str, stable_diffusion: Path, experiment: Experiment, tmp_path: Path
) -> None:
    folder = tmp_path / "sd"
    for name in ("unet", "vae", "scheduler"):
        (folder / name).mkdir(parents=True)
        for file in (stable_diffusion / name).iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    spoil(folder / part, change)
    with pytest.raises(UserError, match=message):
        load_stable_diffusion(folder, experiment.refiner, LearnedEmbedding(3), torch.zeros(1, TOKENS, WIDTH))


def test_parts_that_do_not_belong_together(stable_diffusion: Path, experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="width 16, the empty prompt's embedding has 12"):
        load_stable_diffusion(stable_diffusion, experiment.refiner, LearnedEmbedding(3), torch.zeros(1, TOKENS, 12))
    with pytest.raises(UserError, match=r"text_encoder|tokenizer"):
        empty_prompt(tmp_path)


def test_label_embedding_job(tmp_path: Path, run_job: RunJob) -> None:
    file = tmp_path / "embedding.safetensors"
    done = run_job("embedding", "--classes", "5", "--output", file)
    assert done["exit_code"] == 0, done["text"]
    assert done["outputs"]["accuracy at noise 0.15"] > 0.99
    embedding = load_label_embedding(file, 5)
    ids = torch.randint(0, 5, (1, 16, 16))
    assert torch.equal(embedding.decode(embedding.encode(ids)).argmax(1), ids)
    with pytest.raises(UserError, match="5 classes; expected 7"):
        load_label_embedding(file, 7)


def test_a_table_that_cannot_be_decoded_is_refused(tmp_path: Path, run_job: RunJob) -> None:
    embedding = train_label_embedding(4)
    assert decode_accuracy(embedding).overall[0] == 1.0
    embedding.table.weight[2] = embedding.table.weight[1]
    with pytest.raises(UserError, match=r"class [12] is decoded to another class"):
        check_decodable(embedding, "table")
    save_label_embedding(embedding, tmp_path / "bad.safetensors")
    words = ("--input", tmp_path / "bad.safetensors", "--output", tmp_path / "x.safetensors")
    done = run_job("convert", "embedding", *words)
    assert done["exit_code"] == 2 and "decoded to another class" in done["message"]
    assert not (tmp_path / "x.safetensors").exists()


def test_release_converted(golden_dir: Path, tmp_path: Path, run_job: RunJob) -> None:
    """The reference folder through the job: classes are counted, unused entries dropped, weights the same."""
    folder = golden_dir / "idgbr_8class"
    vectors = load_file(folder / "vectors.safetensors")
    save_file({"prompt_embeds": vectors["prompt_embeds"]}, tmp_path / "prompt.safetensors")
    colours = ["#000000", "#000001", "#000002", "#000003", "#000004", "#000005", "#000006", "#000007"]
    classes = [f"{{name: c{i}, colour: '{colour}'}}" for i, colour in enumerate(colours)]
    config = tmp_path / "eight.yaml"
    config.write_text(
        CONFIG.replace(CONFIG[CONFIG.index("[{name") : CONFIG.index("refiner")], f"[{', '.join(classes)}]\n")
    )
    words = ["--config", config, "--input", folder, "--prompt", tmp_path / "prompt.safetensors"]
    done = run_job("convert", "release", *words, "--output", tmp_path / "model")
    assert done["exit_code"] == 0, done["text"]
    refiner = load_model(tmp_path / "model").refiner
    plain = load_release(folder, vectors["prompt_embeds"])
    assert refiner is not None
    assert all(torch.equal(value, refiner.state_dict()[name]) for name, value in plain.state_dict().items())
    wrong = run_job("convert", "release", *words, "--unused", "2", "--output", tmp_path / "other")
    assert wrong["exit_code"] == 2 and "a table of 8 classes, 2 of them unused; data.classes has 8" in wrong["message"]
    assert not (tmp_path / "other").exists()
    kept = load_label_embedding(folder / "label_embed_net", 6)
    ids = torch.randint(0, 6, (1, 8, 8))
    assert torch.equal(kept.encode(ids), plain.embedding.encode(ids))
