"""Pretrained weights out of the libraries' own caches; the files are made here, in their format."""

from __future__ import annotations

import operator
import re
import socket
import time
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from typer.testing import CliRunner

from samtune.cli import app
from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.models import architecture_alone, build_model, fetch_pretrained
from samtune.preflight import preview

NOBODY = "http://127.0.0.1:9"  # the port of "discard": nothing listens there
TORCHVISION = [  # each names or lays out its weights in a way of its own
    "densenet121",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
]
FIRST = {  # of a model's convolutions, and the parameters that give its logits
    "torchvision/resnet18": ("conv1", {"fc.weight", "fc.bias"}),
    "torchvision/squeezenet1_1": ("features.0", {"classifier.1.weight", "classifier.1.bias"}),
    "timm/resnet18": ("conv1", {"fc.weight", "fc.bias"}),
}


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
    """Empty caches, and no network but through a proxy that is not there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOBODY)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOBODY)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use
    torch.manual_seed(0)


def varied(model):
    """The model with statistics as after training, so that each tensor counts."""
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 2)
    return model.eval()


def torchvision_file(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


def cached(name):
    """A model whose weights lie where its library looks for what it has downloaded."""
    library, _, member = name.partition("/")
    if library == "timm":
        model = varied(timm.create_model(member))
        repository = Path(timm.models.get_pretrained_cfg(member).hf_hub_id)
        from huggingface_hub import constants

        root = Path(constants.HF_HUB_CACHE) / ("models--" + "--".join(repository.parts))
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("0123abcd")
        (root / "snapshots" / "0123abcd").mkdir(parents=True)
        save_file(model.state_dict(), root / "snapshots" / "0123abcd" / "model.safetensors")
        return model
    googlenet = {"aux_logits": True, "transform_input": True, "init_weights": True}
    options = googlenet if member == "googlenet" else {}
    model = varied(torchvision.models.get_model(member, weights=None, **options))
    state = model.state_dict()
    if member.startswith("densenet"):  # named as in the published file
        for key in [key for key in state if ".denselayer" in key]:
            old = key
            for part in ("norm1", "norm2", "conv1", "conv2"):
                old = old.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
            state[old] = state.pop(key)
    path = torchvision_file(member)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return model


def pretrained(name, channels=3, classes=7, **params):
    return build_model(
        name, in_channels=channels, num_classes=classes, pretrained=True, **params
    ).eval()


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *((f"torchvision/{name}", 7) for name in TORCHVISION),
        ("timm/resnet18", 7),
        ("timm/resnet18", 1000),
        ("torchvision/resnet18", 1000),  # as many as were pretrained: drawn anew all the same
        *(
            pytest.param(f"torchvision/{name}", 1000, marks=pytest.mark.slow)
            for name in TORCHVISION
            if name != "resnet18"
        ),
    ],
)
def test_all_weights_but_the_classifiers_are_the_pretrained_ones(name, classes):
    theirs = cached(name)
    ours = pretrained(name, classes=classes)
    # Its inputs to the classifier are theirs where all else is.
    seen = {}
    for key, model in (("theirs", theirs), ("ours", ours)):
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
        last.register_forward_pre_hook(lambda _m, x, key=key: seen.update({key: x[0]}))
        with torch.no_grad():
            logits = model(torch.linspace(-1, 1, 2 * 3 * 96 * 96).reshape(2, 3, 96, 96))
    assert torch.equal(seen["ours"], seen["theirs"])
    assert logits.shape == (2, classes)
    trained = theirs.state_dict()
    differing = {
        key for key, value in ours.state_dict().items() if not torch.equal(value, trained[key])
    }
    assert 1 <= len(differing) <= 2  # the classifier's weight and bias, which is 0 in some


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_the_seed_draws_the_classifier(name):
    cached(name)
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(pretrained(name, classes=1000).fc.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "torchvision/squeezenet1_1", "timm/resnet18"]
)
def test_grey_images_give_what_they_give_in_colour(name):
    cached(name)
    grey, colour = pretrained(name, channels=1), pretrained(name)
    grey.load_state_dict({k: colour.state_dict()[k] for k in FIRST[name][1]}, strict=False)
    images = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(2, 3, 96, 96)))


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_a_small_stem_starts_afresh_and_by_size_the_pretrained_one_stays(name):
    theirs = cached(name)
    small = pretrained(name, image_size=(32, 32), stem="small")
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(small.bn1.running_var, theirs.bn1.running_var)
    by_size = pretrained(name, image_size=(32, 32), stem="auto")
    assert torch.equal(by_size.conv1.weight, theirs.conv1.weight)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("torchvision/resnet18", {"in_channels": 4}, "does not see images of 4 channels"),
        ("torchvision/googlenet", {"in_channels": 1}, "does not see images of 1 channels"),
        ("torchvision/vit_b_16", {"image_size": (64, 64)}, "takes images of 224x224, got 64x64"),
        ("torchvision/maxvit_t", {"image_size": (64, 64)}, "takes images of 224x224, got 64x64"),
        ("timm/coatnet_0_224", {}, "timm has no pretrained weights of coatnet_0_224"),
    ],
)
def test_what_the_weights_are_not_for_is_said_without_fetching_them(name, settings, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_model(name, **{"num_classes": 7, "in_channels": 3, "pretrained": True, **settings})


@pytest.mark.parametrize(
    "name", ["torchvision/vit_h_14", "torchvision/inception_v3", "timm/vit_tiny_patch16_224"]
)
def test_on_the_meta_device_nothing_is_fetched(name):
    with torch.device("meta"):
        pretrained(name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("torchvision/resnet18", "https://download.pytorch.org/models/resnet18-.*.pth"),
        ("timm/resnet18", "https://huggingface.co/timm/resnet18"),
    ],
)
def test_without_a_network_it_is_said_where_weights_come_from_and_belong(name, source, tmp_path):
    with pytest.raises(SamtuneError) as raised:
        pretrained(name)
    said = str(raised.value)
    assert said.startswith(f"{name}: its pretrained weights cannot be loaded: ")
    assert "refused" in said  # the library's own reason
    assert str(tmp_path) in said
    assert re.search(source, said)


def test_a_server_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("samtune.models.pretrained.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(SamtuneError, match="timed out"):
            pretrained("torchvision/resnet18")
        assert time.monotonic() - started < 10
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("content", [b"", b"not found", b"PK\x03\x04 half an archive"])
def test_a_damaged_file_in_the_cache_is_named(content):
    path = torchvision_file("resnet18")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(SamtuneError, match=f"cannot be loaded: .* are kept in {path}"):
        pretrained("torchvision/resnet18")


def test_a_pickle_in_the_cache_runs_no_code(tmp_path):
    path = torchvision_file("resnet18")
    path.parent.mkdir(parents=True)

    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Malicious()}, path)
    with pytest.raises(SamtuneError, match="cannot be loaded"):
        pretrained("torchvision/resnet18")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused():
    path = torchvision_file("resnet18")
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match="do not fit|lack"):
        pretrained("torchvision/resnet18")


STUDY = """
name: fine_tuned
trial:
  model: {name: torchvision/shufflenet_v2_x0_5, pretrained: true}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1}
  training: {epochs: 1, batch_size: 500}
search_space:
  model.freeze: {choice: [[], backbone, [conv1, stage2]]}
study: {trials: 2}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fine_tuned.yaml"
    path.write_text(STUDY)
    return path


def test_before_a_study_missing_weights_are_said_once(file, tmp_path):
    config = read_study(file)  # which builds every choice, but without weights
    with pytest.raises(SamtuneError, match="shufflenet_v2_x0_5: its pretrained weights cannot"):
        preview(config, tmp_path)
    cached("torchvision/shufflenet_v2_x0_5")
    assert preview(config, tmp_path).corners


def test_samtune_train_says_it_before_there_is_a_folder(file, tmp_path):
    storage = tmp_path / "studies"
    result = CliRunner().invoke(app, ["train", str(file), "--storage", str(storage)])
    assert isinstance(result.exception, SamtuneError)
    assert not storage.exists()


def test_only_a_librarys_pretrained_models_are_fetched():
    fetch_pretrained("resnet")
    fetch_pretrained("torchvision/resnet18", pretrained=False)
    with pytest.raises(SamtuneError, match="cannot be loaded"):
        fetch_pretrained("torchvision/resnet18", pretrained=True, freeze=["conv1"])


@pytest.mark.parametrize(
    ("name", "path", "value", "otherwise"),
    [
        ("torchvision/googlenet", "transform_input", True, False),
        ("timm/fbnetc_100", "bn1.eps", 1e-3, 1e-5),
    ],
)
def test_without_its_weights_a_pretrained_model_is_built_alike(name, path, value, otherwise):
    """Libraries change more than weights; weights out of an exported file want that, too."""
    with architecture_alone():
        alone = pretrained(name)
    scratch = build_model(name, in_channels=3, num_classes=7)
    get = operator.attrgetter(path)
    assert (get(alone), get(scratch)) == (value, otherwise)


def test_within_architecture_alone_no_weights_are_asked_for_and_after_it_they_are():
    with architecture_alone():
        pretrained("torchvision/resnet18")
    with pytest.raises(SamtuneError, match="cannot be loaded"):
        pretrained("torchvision/resnet18")
