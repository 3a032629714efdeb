from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from samtune.models import build_model
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.training.selfcheck import check_model

PARTS = {
    "torchvision/resnet18": ["conv1", "bn1", "layer1"],
    "torchvision/shufflenet_v2_x0_5": ["conv1", "stage2.0"],
    "timm/resnet18": ["conv1", "bn1", "layer1.0"],
    "timm/mobilenetv3_small_050": ["conv_stem", "bn1", "blocks.0"],
}
HEADS = {  # what is left to train beside a frozen backbone
    "torchvision/resnet18": {"fc.weight", "fc.bias"},
    "torchvision/squeezenet1_1": {"classifier.1.weight", "classifier.1.bias"},
    "torchvision/vgg11_bn": {"classifier.6.weight", "classifier.6.bias"},
    "torchvision/swin_t": {"head.weight", "head.bias"},
    "torchvision/regnet_y_400mf": {"fc.weight", "fc.bias"},
    "timm/resnet18": {"fc.weight", "fc.bias"},
    "timm/convnext_atto": {"head.fc.weight", "head.fc.bias"},
    "timm/deit_tiny_distilled_patch16_224": {
        "head.weight",
        "head.bias",
        "head_dist.weight",
        "head_dist.bias",
    },
}
STEPS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "fused": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1, "fused": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


def built(name, freeze, classes=3):
    return build_model(name, in_channels=1, num_classes=classes, freeze=freeze)


def is_frozen(name, parts):
    return any(name == part or name.startswith(part + ".") for part in parts)


@pytest.mark.parametrize(
    "optimizer", ["fused", "adamw", pytest.param("sgd", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("adaptive", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PARTS)
def test_sam_leaves_frozen_parts_alone_and_trains_the_others(name, adaptive, optimizer):
    torch.manual_seed(0)
    model = built(name, PARTS[name]).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    base, settings = STEPS[optimizer]
    sam = SAM(model.parameters(), base, rho=0.5, adaptive=adaptive, lr=0.1, **settings)
    images = torch.randn(4, 1, 32, 32)
    for _ in range(2):
        model(images).logsumexp(1).sum().backward()
        with sam.at_worst_neighbor(), frozen_batchnorm_stats(model):
            there = {key: value.clone() for key, value in model.named_parameters()}
            model(images).logsumexp(1).sum().backward()
        sam.descend()
        sam.zero_grad()
    after = model.state_dict()
    frozen = {key for key in before if is_frozen(key, PARTS[name])}
    assert any(key.endswith("running_mean") for key in frozen)
    assert [key for key in frozen if not torch.equal(before[key], after[key])] == []
    assert [k for k in frozen & there.keys() if not torch.equal(before[k], there[k])] == []
    trained = [key for key in there if key not in frozen]
    assert trained
    assert [key for key in trained if torch.equal(before[key], after[key])] == []
    moving = [k for k in before.keys() - frozen if k.endswith("running_mean")]
    assert [key for key in moving if torch.equal(before[key], after[key])] == []


@pytest.mark.parametrize("name", HEADS)
def test_with_a_frozen_backbone_the_classifier_alone_trains(name):
    with torch.device("meta"):
        model = built(name, "backbone")
    assert {key for key, p in model.named_parameters() if p.requires_grad} == HEADS[name]
    assert not any(m.training for m in model.train().modules() if isinstance(m, _BatchNorm))


@pytest.mark.parametrize("name", ["torchvision/shufflenet_v2_x0_5", "timm/mobilenetv3_small_050"])
def test_the_self_check_finds_sams_promises_kept_on_a_frozen_model(name):
    found = check_model(name, freeze=PARTS[name])
    assert [finding for finding in found if not finding.holds] == []


def test_a_frozen_batch_norm_normalises_by_its_own_statistics_while_training():
    model = built("torchvision/resnet18", ["bn1"]).train()
    images = torch.randn(4, 64, 8, 8)
    expected = images / (1 + model.bn1.eps) ** 0.5  # mean 0, variance 1 and scale 1 as new
    torch.testing.assert_close(model.bn1(images), expected)
    model.bn1.reset_running_stats()
    assert torch.equal(model.bn1.running_var, torch.ones(64))


def test_a_frozen_model_is_copied_and_pickled_frozen_and_has_the_same_state():
    model = built("torchvision/resnet18", ["bn1"])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not twin.train().bn1.training
        assert twin.layer1[0].bn1.training
        assert not twin.bn1.weight.requires_grad
    assert model.state_dict().keys() == built("torchvision/resnet18", []).state_dict().keys()


def test_a_part_is_a_whole_name_and_not_the_beginning_of_one():
    with pytest.raises(ValueError, match="no part 'layer'.*Did you mean 'layer.'.*conv1, bn1"):
        built("torchvision/resnet18", ["layer"])


def test_a_model_that_is_frozen_as_a_whole_is_refused():
    with pytest.raises(ValueError, match="freeze leaves nothing to train"):
        built("timm/resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"])
