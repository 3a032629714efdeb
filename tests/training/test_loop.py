from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samtune.config.checked_trial import trial_with
from samtune.config.schema import StudyConfig
from samtune.config.trial import Named, TrialConfig
from samtune.data import DataSplits, load_dataset
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.training.loop import EpochResult, train
from samtune.training.state import TrainingState, set_up

CPU = torch.device("cpu")
Make = Callable[..., StudyConfig]


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_dataset("digits", label_noise=0.4)


@pytest.fixture
def trial(study_config: Make) -> TrialConfig:
    return study_config(
        ("depth: 10", "depth: 10, dropout: 0.2"), ("epochs: 3", "epochs: 3, precision: fp32")
    ).trial


def _run(
    config: TrialConfig, data: DataSplits, state: TrainingState | None = None
) -> tuple[TrainingState, list[EpochResult]]:
    state = state or set_up(config, data, CPU)
    return state, list(train(state, config, data, CPU))


def _metrics(results: list[EpochResult]) -> list[dict[str, float]]:
    return [r.metrics for r in results]


def _with(trial: TrialConfig, **training: int) -> TrialConfig:
    return trial.model_copy(update={"training": trial.training.model_copy(update=training)})


def test_resuming_equals_never_having_stopped(trial: TrialConfig, digits: DataSplits) -> None:
    trial = _with(trial, epochs=2)
    whole_state, whole = _run(trial, digits)

    state = set_up(trial, digits, CPU)
    first = next(iter(train(state, trial, digits, CPU)))
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    torch.manual_seed(999)  # another process has another generator
    fresh = set_up(trial, digits, CPU)
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    fresh, rest = _run(trial, digits, fresh)

    assert _metrics([first, *rest]) == _metrics(whole)
    for name, value in whole_state.model.state_dict().items():
        assert torch.equal(value, fresh.model.state_dict()[name]), name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    trial: TrialConfig, digits: DataSplits
) -> None:
    trial = _with(trial, epochs=1)
    one = _run(trial, digits)[1]
    assert _metrics(one) == _metrics(_run(trial, digits)[1])
    assert _metrics(one) != _metrics(_run(_with(trial, seed=1), digits)[1])


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_the_defaults_are_a_loop_of_plain_torch(
    trial: TrialConfig, digits: DataSplits, rho: float
) -> None:
    """Bit for bit: what can be switched on changes nothing while it is off."""
    config = trial.model_copy(update={"sam": trial.sam.model_copy(update={"rho": rho})})
    state, results = _run(config, digits)

    model = copy.deepcopy(set_up(config, digits, CPU).model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    batches = digits.train_batches(400, CPU)
    losses = []
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2
        seeds = np.random.SeedSequence([0, epoch + 1]).generate_state(2)
        model.train()
        epoch_losses: list[torch.Tensor] = []
        for inputs, targets in batches.shuffled(int(seeds[1])):
            steps = 3 * epoch + len(epoch_losses)
            dropout = np.random.SeedSequence([0, epoch, steps]).generate_state(1)
            torch.manual_seed(int(dropout[0]))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            if rho:
                climb = SAM(model.parameters(), torch.optim.SGD, rho=rho)  # it steps nowhere
                with climb.at_worst_neighbor(), frozen_batchnorm_stats(model):
                    F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            epoch_losses.append(loss.detach())
        losses.append(torch.stack(epoch_losses).mean().item())
    assert [r.metrics["train_loss"] for r in results] == losses
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_sam_beats_sgd_under_label_noise(study_config: Make, digits: DataSplits) -> None:
    """The question the bundled study asks, at a tenth of its size."""
    config = study_config(("epochs: 3", "epochs: 12"), ("batch_size: 400", "batch_size: 120"))

    def last(rho: float) -> float:
        return _run(trial_with(config, {"sam.rho": rho}), digits)[1][-1].metrics["val_accuracy"]

    assert last(0.5) > last(0.0) + 0.1


def test_a_model_that_comes_in_evaluation_mode_is_trained_in_training_mode(
    trial: TrialConfig, digits: DataSplits
) -> None:
    first, other = (set_up(trial, digits, CPU) for _ in range(2))
    other.model.eval()
    results = [next(train(state, trial, digits, CPU)) for state in (first, other)]
    assert results[0].metrics == results[1].metrics
    assert other.model.training


def test_not_finite_metrics_are_named() -> None:
    result = EpochResult(1, {"train_loss": math.nan, "val_loss": 0.1, "lr": math.inf}, 0.1)
    assert result.not_finite == ["train_loss", "lr"]


@pytest.mark.parametrize(
    ("sam", "gradients"),
    [
        ({"rho": 0.0}, [1200, 1200, 1200]),
        ({}, [2400, 2400, 2400]),
        ({"every": 4}, [1600, 1600, 1600]),  # steps 0, 4 and 8 climb, of three an epoch
        ({"ascent_fraction": 0.25}, [1500, 1500, 1500]),
        ({"start_fraction": 0.5}, [1200, 1200, 2400]),
        ({"variant": "msam"}, [1200, 1200, 1200]),
        ({"variant": "fsam"}, [2400, 2400, 2400]),
        ({"micro_ascent": 100}, [2400, 2400, 2400]),
    ],
)
def test_every_gradient_of_an_image_is_counted(
    trial: TrialConfig, digits: DataSplits, sam: dict[str, float | str], gradients: list[int]
) -> None:
    """3 batches of 400 of the 1,200 images; `gradients_per_step` knows it from the settings."""
    small = Named.model_validate({"name": "resnet", "blocks": [1], "channels": [4]})
    config = trial.model_copy(update={"sam": trial.sam.model_copy(update=sam), "model": small})
    counted = [r.metrics["gradient_evaluations"] for r in _run(config, digits)[1]]
    assert counted == gradients
    per_step = config.sam.gradients_per_step(3)
    if "every" not in sam:  # of which three steps are no whole multiple
        assert sum(counted) == pytest.approx(3 * 1200 * per_step)
