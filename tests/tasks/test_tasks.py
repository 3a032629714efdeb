from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, top_k_accuracy_score

from samtune.errors import UnknownNameError
from samtune.models.unet import center_crop
from samtune.tasks import build_task, fits, study_metrics
from samtune.tasks.losses import MarginLoss, MaskLoss, ReconstructionLoss, SmoothCrossEntropy


def metered(task, batches):
    meter = task.meter()
    for outputs, inputs, targets in batches:
        meter.update(outputs, inputs, targets)
    return meter.compute()


def test_accuracy_and_top5_are_those_of_scikit_learn():
    torch.manual_seed(0)
    logits, classes = torch.randn(64, 8), torch.randint(0, 8, (64,))
    task = build_task("classification", num_classes=8)
    parts = [(logits[i : i + 20], None, classes[i : i + 20]) for i in range(0, 64, 20)]
    found = metered(task, parts)
    assert found["accuracy"] == accuracy_score(classes, logits.argmax(1))
    assert found["top5_accuracy"] == top_k_accuracy_score(classes, logits, k=5, labels=range(8))
    assert math.isclose(found["loss"], F.cross_entropy(logits, classes).item(), rel_tol=1e-6)


def test_top5_is_not_asked_of_five_classes_or_fewer():
    task = build_task("classification", num_classes=5)
    assert "top5_accuracy" not in task.metrics
    assert set(metered(task, [(torch.randn(4, 5), None, torch.zeros(4).long())])) == {
        "loss",
        "accuracy",
    }
    assert "val_top5_accuracy" in study_metrics("classification")


@pytest.mark.parametrize("classes", [1, 3])
def test_dice_iou_and_pixel_accuracy_are_those_of_scikit_learn(classes):
    torch.manual_seed(0)
    logits = torch.randn(6, classes, 8, 8)
    masks = torch.randint(0, max(2, classes), (6, 8, 8)).to(torch.uint8)
    task = build_task("segmentation", num_classes=classes)
    found = metered(task, [(logits[:4], None, masks[:4]), (logits[4:], None, masks[4:])])
    truth, predicted = masks.flatten(), task.predict(logits).flatten()
    average = "binary" if classes == 1 else "macro"
    assert math.isclose(found["dice"], f1_score(truth, predicted, average=average))
    assert math.isclose(found["iou"], jaccard_score(truth, predicted, average=average))
    assert math.isclose(found["pixel_accuracy"], accuracy_score(truth, predicted))
    assert math.isclose(found["loss"], MaskLoss()(logits, masks).item(), rel_tol=1e-6)


def test_a_class_that_occurs_nowhere_does_not_count():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 1.0
    task = build_task("segmentation", num_classes=3)
    assert metered(task, [(logits, None, torch.zeros(1, 2, 2, dtype=torch.uint8))])["dice"] == 1.0


def test_targets_are_cropped_to_the_middle_of_the_image():
    mask = torch.arange(36).reshape(1, 6, 6)
    assert center_crop(mask, (2, 3)).tolist() == [[[13, 14, 15], [19, 20, 21]]]
    logits = torch.zeros(1, 1, 2, 2)
    task = build_task("segmentation", num_classes=1)
    border = torch.ones(1, 4, 4, dtype=torch.uint8)
    border[:, 1:3, 1:3] = 0
    assert metered(task, [(logits, None, border)])["pixel_accuracy"] == 1.0


def test_smoothing_that_spreads_over_wrong_classes_is_torchs_with_a_larger_share():
    torch.manual_seed(0)
    logits = torch.randn(16, 10, requires_grad=True)
    classes = torch.randint(0, 10, (16,))
    target = torch.full((16, 10), 0.1 / 9).scatter_(1, classes[:, None], 0.9)
    divergence = F.kl_div(F.log_softmax(logits, 1), target, reduction="batchmean")
    (theirs,) = torch.autograd.grad(divergence, logits)
    ours_value = SmoothCrossEntropy(0.1 * 10 / 9)(logits, classes)
    (ours,) = torch.autograd.grad(ours_value, logits)
    torch.testing.assert_close(ours, theirs)
    entropy = -(target * target.log()).sum(1).mean()
    torch.testing.assert_close(ours_value - entropy, divergence)


@pytest.mark.parametrize(("squared", "expected"), [(True, 0.205), (False, 0.55)])
def test_the_margin_loss_of_a_vector_by_hand(squared, expected):
    # The true class 0.5 long, another 0.4, the third 0: margins 0.4 and 0.3, the latter by half.
    capsules = torch.zeros(1, 3, 2)
    capsules[0, 0, 0], capsules[0, 1, 1] = 0.5, 0.4
    by_hand = 0.4**2 + 0.5 * 0.3**2 if squared else 0.4 + 0.5 * 0.3
    assert math.isclose(by_hand, expected)
    found = MarginLoss(squared=squared)(capsules, torch.tensor([0]))
    assert math.isclose(found.item(), expected, rel_tol=1e-5)


def test_an_image_is_redrawn_as_it_was_before_normalisation():
    pixels = torch.rand(2, 1, 4, 4)
    task = build_task("capsule", num_classes=2, mean=(0.3,), std=(0.5,))
    capsules = torch.zeros(2, 2, 16)
    capsules[:, 0, 0] = 0.95  # the right class for sure: no margin is missed
    inputs = (pixels - 0.3) / 0.5
    classes = torch.zeros(2).long()

    def model(images):
        return capsules, lambda drawn: pixels if drawn is classes else None

    outputs = task.forward(model, inputs, classes)
    assert task.loss(outputs, inputs, classes).item() < 1e-9
    assert ReconstructionLoss("sum")(pixels + 0.1, pixels).item() == pytest.approx(0.16)
    assert ReconstructionLoss("mean")(pixels + 0.1, pixels).item() == pytest.approx(0.01)


def test_capsules_refuse_label_smoothing():
    with pytest.raises(ValueError, match="label_smoothing must be 0 for capsules"):
        build_task("capsule", label_smoothing=0.1)


def test_capsules_train_on_classes_and_nothing_else_mixes():
    assert fits("capsule", "classification")
    assert not fits("segmentation", "classification")
    assert not fits("classification", "segmentation")
    assert fits("my_own", "my_own")
    with pytest.raises(UnknownNameError, match="No task named 'my_own'"):
        build_task("my_own")
