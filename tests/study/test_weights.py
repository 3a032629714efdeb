"""What a journal records is what the saved weights give, for each kind of task."""

from __future__ import annotations

import pytest
import torch

from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.study import Study, StudyFolder, open_study
from samtune.study.single import train_single
from samtune.study.weights import load_trained
from tests.faults.saboteur import run

TRIALS = [
    ("{name: resnet, blocks: [1], channels: [4]}", "{name: digits}", "val_accuracy"),
    (
        "{name: capsnet, channels: 4, primary_capsules: 1, kernel_size: 3, decoder: [4]}",
        "{name: digits}",
        "val_reconstruction_error",
    ),
    ("{name: unet, base_channels: 2}", "{name: digits_segmentation}", "val_dice"),
]


KINDS = ["resnet", "capsnet", "unet"]


@pytest.mark.parametrize(
    ("model", "dataset", "metric", "precision"),
    [
        pytest.param(*trial, precision, id=f"{kind}-{precision}", marks=marks)
        for kind, trial in zip(KINDS, TRIALS, strict=True)
        for precision, marks in (
            ("fp32", []),
            # Convolutions of many images take long where it is emulated.
            ("bf16", [pytest.mark.slow] if kind == "unet" else []),
        )
    ],
)
def test_saved_weights_give_the_recorded_metrics_to_the_last_digit(
    tmp_path, model, dataset, metric, precision
):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"name: kept\ntrial:\n  model: {model}\n  dataset: {dataset}\n"
        "  optimizer: {name: adam, lr: 0.003}\n  training: {epochs: 2, batch_size: 100, "
        f"precision: {precision}}}\n"
        f"study: {{metric: {metric}}}\n"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        progress = list(train_single(read_study(path), "kept", tmp_path))
        trained = load_trained(open_study("kept", tmp_path).trials[0])
        measured = trained.evaluate()
    finally:
        torch.set_num_threads(threads)
    assert progress[-1].outcome.state == "finished"
    assert measured == {name: trained.metrics[name] for name in measured}


def test_lost_weights_are_taken_from_the_state_of_their_epoch_while_it_is_kept(trial, digits):
    run(trial, digits)
    folder = StudyFolder(trial.root.parent.parent)
    (kept,) = Study(folder, folder.config()).trials
    best = kept.best_epoch
    assert best.epoch in (4, 5)  # whose states are kept
    whole = load_trained(kept).model.state_dict()
    trial.file(best.weights).write_bytes(b"")
    again = load_trained(kept)
    assert again.epoch == best.epoch
    assert all(
        torch.equal(tensor, whole[name]) for name, tensor in again.model.state_dict().items()
    )
    trial.file(best.state).unlink()
    with pytest.raises(SamtuneError, match=f"{best.weights}, the weights of trial t0001 after"):
        load_trained(kept)
