"""The self-check passes sound models and finds what is wrong with others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samtune.tasks import Classification
from samtune.training.selfcheck import check_model, check_sam


class CountsItsCalls(nn.Module):
    """Keeps statistics that no one but itself knows how to freeze."""

    def __init__(self, calls: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("calls", torch.tensor(calls))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.linear(x)
        return y


class PacksItsWeights(nn.Module):
    """Computes with a view of its weights that it made once."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.packed = self.linear.weight.data.t()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x @ self.packed + self.linear(x)
        return y


class ForgetsThatItHasNoNumber(nn.Module):
    """Its statistic is no number in the first pass, and 0 from the second on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("mean", torch.tensor(0.0))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.mean.fill_(torch.nan if self.passes == 1 else 0.0)
        y: Tensor = self.linear(x)
        return y


def test_a_wide_resnet_with_dropout_keeps_all_promises() -> None:
    findings = check_model("wide_resnet", depth=10, width_factor=1, dropout=0.3)
    assert len(findings) == 5
    assert all(finding.holds for finding in findings), findings


def test_statistics_that_move_in_the_second_pass_are_found() -> None:
    findings = check_sam(CountsItsCalls, Classification(), torch.randn(8, 4), torch.arange(8) % 3)
    assert [f.claim for f in findings if not f.holds] == ["the second pass moves no statistics"]


def test_a_second_pass_that_stays_at_home_is_found() -> None:
    found = check_sam(PacksItsWeights, Classification(), torch.randn(8, 4), torch.arange(8) % 3)
    broken = [finding.claim for finding in found if not finding.holds]
    assert broken == ["the second pass computes at the neighbor"]


def test_a_buffer_that_holds_no_number_is_no_finding() -> None:
    findings = check_sam(
        lambda: CountsItsCalls(torch.nan), Classification(), torch.randn(8, 4), torch.arange(8) % 3
    )
    assert all(finding.holds for finding in findings), findings


def test_a_number_in_the_place_of_none_is_found() -> None:
    found = check_sam(
        ForgetsThatItHasNoNumber, Classification(), torch.randn(8, 4), torch.arange(8) % 3
    )
    broken = [finding.claim for finding in found if not finding.holds]
    assert broken == ["the second pass moves no statistics"]
