"""Which arithmetic `auto` stands for."""

from __future__ import annotations

import pytest
import torch

from idgbr.models.precision import autocast, computes_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("units", [{"avx512_bf16": True}, {"amx_bf16": True, "avx512_bf16": True}, {}])
def test_auto_is_bf16_only_where_the_processor_has_a_matrix_unit_for_it(
    units: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    able = "amx_bf16" in units
    assert computes_bf16(CPU) == able
    with autocast("auto", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if able else torch.float32)


def test_a_precision_that_is_asked_for_is_used() -> None:
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
