"""On a GPU: the same steps as on a CPU, no waiting inside an epoch, one copy of the weights.

These need a GPU and torch alone; without one they are skipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, Images
from samtune.data.augmentation import Augmentation
from samtune.tasks import Classification
from samtune.training.loop import sam_step, train
from samtune.training.processes import train_together
from samtune.training.state import set_up

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CPU = torch.device("cpu")
GPU = torch.device("cuda")


def splits() -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Images:
        return Images(
            torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator),
            torch.randint(0, 4, (count,), generator=generator),
        )

    return DataSplits(
        task="classification",
        num_classes=4,
        train=part(128),
        val=part(32),
        open_test=lambda: part(1),
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        augmentation=Augmentation(crop_padding=2, flip=True, cutout=4),
    )


def trial(sam: dict[str, Any], *, width: int = 1, **training: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "model": {"name": "wide_resnet", "depth": 10, "width_factor": width},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
            "sam": {"rho": 0.1, **sam},
            "training": {"epochs": 2, "batch_size": 32, **training},
        }
    )


VARIANTS = [
    {"variant": variant} for variant in ("sam", "asam", "asam_eta", "fsam", "sam_on", "msam")
] + [{"ascent_fraction": 0.25}, {"every": 2}, {"rho": 0.0}]


@pytest.mark.parametrize("sam", VARIANTS, ids=str)
def test_a_gpu_trains_as_a_cpu_does(sam: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    losses = {}
    for device in (CPU, GPU):
        config = trial(sam, precision="fp32")
        state = set_up(config, splits(), device)
        losses[device] = [r.metrics["train_loss"] for r in train(state, config, splits(), device)]
    assert losses[GPU] == pytest.approx(losses[CPU], rel=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
@pytest.mark.parametrize("sam", [{}, {"micro_ascent": 8}, {"rho": 0.0}], ids=str)
def test_two_gpus_train_as_one_does(sam: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config, losses = trial(sam, precision="fp32"), []
    for processes in (1, 2):
        state = set_up(config, splits(), GPU if processes == 1 else CPU)
        results = train_together(state, config, splits(), GPU, processes)
        losses.append([r.metrics["train_loss"] for r in results])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


WAITS = {"variant": "fsam"}  # for the norm, since its running mean must not meet a NaN


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sam", [sam for sam in VARIANTS if sam != WAITS], ids=str)
def test_an_epoch_waits_for_the_gpu_at_its_end_only(sam: dict[str, Any], precision: str) -> None:
    config = trial(sam, precision=precision)
    data = splits()
    state = set_up(config, data, GPU)
    batches = data.train_batches(32, GPU)
    for inputs, targets in batches.shuffled(0):  # allocates, and lets cuDNN choose
        sam_step(state, Classification(), inputs, targets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for inputs, targets in batches.shuffled(1):
            sam_step(state, Classification(), inputs, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "settings",
    [{"random_resized_crop": 0.3}, {"color_jitter": 0.4}, {"randaugment_ops": 2}],
    ids=str,
)
def test_augmented_and_mixed_batches_are_made_without_waiting_and_are_a_cpus(
    settings: dict[str, Any],
) -> None:
    data = splits()
    data = replace(data, augmentation=replace(data.augmentation, **settings))

    def shown(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(data.train_batches(32, device, mixup=0.4, cutmix=1.0).shuffled(1))

    shown(GPU)  # allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = shown(GPU)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (images, targets), (expected, shares) in zip(found, shown(CPU), strict=True):
        torch.testing.assert_close(targets.cpu(), shares)
        # A level of 255 is 0.014 here, and a pixel between two may be taken from either.
        assert ((images.cpu() - expected).abs() < 0.03).double().mean() > 0.99


def test_sam_takes_one_copy_of_the_weights_at_most() -> None:
    held = {}
    for rho in (0.0, 0.1):
        config = trial({"rho": rho}, width=8, precision="fp32", batch_size=2)
        data = splits()
        state = set_up(config, data, GPU)
        inputs, targets = next(iter(data.train_batches(2, GPU).shuffled(0)))
        sam_step(state, Classification(), inputs, targets)
        torch.cuda.reset_peak_memory_stats()
        sam_step(state, Classification(), inputs, targets)
        held[rho] = torch.cuda.max_memory_allocated()
        weights = sum(p.numel() * p.element_size() for p in state.model.parameters())
        del state
    assert held[0.1] - held[0.0] <= 1.05 * weights
