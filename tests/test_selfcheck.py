"""The self-check passes sound models and finds what is wrong with others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samtune.selfcheck import check_model, check_sam
from samtune.tasks import Classification


class CountsItsCalls(nn.Module):
    """Keeps statistics that no one but itself knows how to freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.linear(x)
        return y


def test_a_wide_resnet_with_dropout_keeps_all_promises() -> None:
    findings = check_model("wide_resnet", depth=10, width_factor=1, dropout=0.3)
    assert len(findings) == 4
    assert all(finding.holds for finding in findings), findings


def test_statistics_that_move_in_the_second_pass_are_found() -> None:
    model = CountsItsCalls()
    findings = check_sam(model, Classification(), torch.randn(8, 4), torch.arange(8) % 3)
    assert [f.claim for f in findings if not f.holds] == ["the second pass moves no statistics"]
    assert model.calls == 0
