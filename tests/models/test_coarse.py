"""Stage 1's networks, and where their weights come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from idgbr.config.models import CoarseConfig
from idgbr.errors import UserError
from idgbr.models.coarse import build_coarse, padded_logits
from idgbr.models.condition_encoder import FrozenImageEncoder

PACKAGE = "package:efficientnet-lite0"


@pytest.mark.parametrize("decoder", ["Unet", "FPN", "Segformer", "DeepLabV3Plus", "UPerNet"])
def test_any_decoder_on_any_size(decoder: str) -> None:
    model = build_coarse(CoarseConfig(decoder=decoder), classes=5, bands=4).eval()
    with torch.no_grad():
        assert padded_logits(model, torch.randn(2, 4, 70, 96)).shape == (2, 5, 70, 96)


def test_what_is_missing_is_a_mirror_image() -> None:
    """Also where it is more than there is; PAN fails on less than 128 px."""
    image, seen = torch.rand(1, 3, 40, 90), []

    def model(given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return given

    assert torch.equal(padded_logits(model, image), image)
    assert torch.equal(seen[0], torch.nn.functional.pad(image, (0, 6, 0, 24), mode="reflect"))
    padded_logits(model, image[..., :1], least=128)
    assert seen[1].shape == (1, 3, 128, 128)
    assert torch.equal(seen[1][0, 0, :, 0], torch.tensor(np.pad(image[0, 0, :, 0], (0, 88), mode="reflect")))
    pan = build_coarse(CoarseConfig(decoder="PAN"), classes=2, bands=3).eval()
    with torch.no_grad():
        assert padded_logits(pan, image, least=128).shape == (1, 2, 40, 90)


def test_weights_of_the_package_are_real_and_fit_any_band_count() -> None:
    three = build_coarse(CoarseConfig(), 2, 3).encoder.model.state_dict()
    four = build_coarse(CoarseConfig(), 2, 4).encoder.model.state_dict()
    first = next(iter(three))
    # timm's rule: the three bands' filters repeat, scaled so that the sum of all inputs keeps its size.
    torch.testing.assert_close(four[first], three[first][:, [0, 1, 2, 0]] * 0.75)
    assert all(torch.equal(three[name], four[name]) for name in list(three)[1:])
    # Trained batch norms have seen data; fresh ones have a mean of zero.
    assert three["bn1.running_mean"].abs().max() > 0


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = timm.create_model("mobilenetv3_small_050", num_classes=0)
    save_file(source.state_dict(), tmp_path / "encoder.safetensors")
    config = CoarseConfig(encoder="tu-mobilenetv3_small_050", weights=str(tmp_path / "encoder.safetensors"))
    got = build_coarse(config, 2, 3).encoder.model.state_dict()
    assert torch.equal(got["conv_stem.weight"], source.state_dict()["conv_stem.weight"])


def test_the_refiner_s_encoder_has_the_same_weights() -> None:
    whole = build_coarse(CoarseConfig(), 2, 3).encoder.model.state_dict()
    encoder = FrozenImageEncoder("tf_efficientnet_lite0", PACKAGE, [0, 1, 2], 3, pretrained=True)
    part = encoder.model.state_dict()
    assert 0 < len(part) < len(whole)
    assert all(torch.equal(value, whole[name]) for name, value in part.items())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().training
    assert [tuple(f.shape[1:]) for f in encoder(torch.zeros(1, 3, 32, 32))] == [(16, 16, 16), (24, 8, 8), (40, 4, 4)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CoarseConfig(decoder="Fnp"), "coarse.decoder 'Fnp'"),
        (CoarseConfig(encoder="tu-nosuchnet"), "nosuchnet"),
        (CoarseConfig(weights="nowhere.pth"), "no such file"),
        (CoarseConfig(encoder="tu-resnet18", weights=PACKAGE), "encoder"),
    ],
)
def test_what_does_not_exist_or_fit_is_named(config: CoarseConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_coarse(config, 2, 3)


@pytest.mark.usefixtures("no_hub")
def test_a_hub_out_of_reach() -> None:
    """Decoder's, refiner's: the key that would do without is named."""
    with pytest.raises(UserError, match=r"coarse\.weights 'hub': the weights could not be fetched"):
        build_coarse(CoarseConfig(encoder="tu-resnet10t", weights="hub"), 2, 3)
    with pytest.raises(UserError, match=r"refiner\.image_encoder_weights 'hub'"):
        FrozenImageEncoder("resnet10t", "hub", [0], 3, pretrained=True)
    FrozenImageEncoder("resnet10t", "hub", [0], 3, pretrained=False)


def test_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="not a readable state dict"):
        build_coarse(CoarseConfig(weights=str(tmp_path / "weights.pth")), 2, 3)
