"""`samtune train` with the settings people train with, each seen at work from outside."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.data import load_dataset
from samtune.export import export, load_exported
from samtune.registry import MODELS, register_model
from samtune.study import open_study
from samtune.study.single import train_single
from samtune.study.weights import load_trained
from samtune.training.checkpoint import load_weights
from samtune.training.loop import train
from samtune.training.state import set_up

CPU = torch.device("cpu")


class Witness(nn.Module):
    """A small net that remembers the size of each batch it was trained on."""

    seen: list[int] = []  # noqa: RUF012 - of all instances

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
        )

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            Witness.seen.append(len(images))
        logits: Tensor = self.net(images)
        return logits


if "witness" not in MODELS:
    register_model("witness")(Witness)


def config(training: str, select: str = "last") -> StudyConfig:
    text = f"""
name: recipe
trial:
  model: {{name: witness}}
  dataset: {{name: digits, label_noise: 0.4}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.01}}
  sam: {{rho: 0.3, micro_ascent: 150}}
  training: {{epochs: 3, batch_size: 300, precision: fp32, {training}}}
study: {{select: {select}}}
"""
    return check_study(parse_yaml(text, "recipe.yaml"), Path.cwd())


RECIPE = "warmup_epochs: 1.5, lr_interval: step, ema_decay: 0.9, decay_norms_and_biases: false"


def test_warmup_an_average_and_climbs_in_parts_are_at_work_together(tmp_path: Path) -> None:
    Witness.seen.clear()
    progress = list(train_single(config(RECIPE), "recipe", tmp_path))
    outcome = progress[-1].outcome
    assert outcome is not None
    assert outcome.state == "finished"

    # Four steps an epoch, two parts a step, two passes a part.
    assert Witness.seen == [150] * 3 * 4 * 2 * 2
    # Six steps of warm-up, then a cosine over six: 4/6 up, 1/6 and 5/6 down.
    rates = [p.metrics["lr"] for p in progress if p.metrics]
    down = [(1 + math.cos(math.pi * share)) / 2 for share in (1 / 6, 5 / 6)]
    assert rates == pytest.approx([0.1 * 4 / 6, 0.1 * down[0], 0.1 * down[1]])

    # The same training without the average gives the weights that the average is of.
    bare = config(RECIPE.replace("ema_decay: 0.9, ", "")).trial
    data = load_dataset("digits", label_noise=0.4)
    state = set_up(bare, data, CPU)
    steps: list[list[Tensor]] = []
    state.optimizer.base_optimizer.register_step_post_hook(
        lambda *_: steps.append([p.detach().double().clone() for p in state.model.parameters()])
    )
    for _ in train(state, bare, data, CPU):
        pass
    mean = steps[0]
    for n, at_step in enumerate(steps[1:], 1):
        decay = min(0.9, (1 + n) / (10 + n))
        mean = [decay * m + (1 - decay) * w for m, w in zip(mean, at_step, strict=True)]

    study = open_study("recipe", tmp_path)
    exported = export(study, study.trials[0], tmp_path / "best.pt", "pt")
    assert exported.measured == exported.recorded
    found = [p.detach().double() for p in load_exported(tmp_path / "best.pt").parameters()]
    for ours, expected in zip(found, mean, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], steps[-1][0], atol=1e-3)


@pytest.mark.parametrize("select", ["best", "last"])
@pytest.mark.parametrize("average", ["ema_decay: 0.9", "average_from: 0.3"])
def test_the_weights_on_disk_are_those_that_were_evaluated(
    tmp_path: Path, average: str, select: str
) -> None:
    list(train_single(config(average, select), "recipe", tmp_path))
    trial = open_study("recipe", tmp_path).trials[0]
    trained = load_trained(trial)
    measured = trained.evaluate()
    assert measured == {name: trained.metrics[name] for name in measured}
    best = trial.best_epoch
    assert best is not None
    assert load_weights(trial.folder.file(best.weights), dict)[1]["epoch"] == best.epoch
