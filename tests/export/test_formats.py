"""Whatever is no file of `samtune export` is refused in a sentence, and nothing in it is run."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from samtune.errors import SamtuneError
from samtune.export.formats import load_exported
from samtune.models import build_model, model_names
from samtune.registry import register_model
from tests.export.written import said, write

RECIPE = {
    "name": "resnet",
    "in_channels": 1,
    "num_classes": 3,
    "image_size": [8, 8],
    "blocks": [1],
    "channels": [4],
}
FORMATS = ["pt", "safetensors"]
few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def small() -> nn.Module:
    return build_model(**{**RECIPE, "image_size": (8, 8)})  # type: ignore[arg-type]


def exported(format: Any, recipe: Any = RECIPE) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder, "file"), small(), said(recipe), format).read_bytes()


def refused(path: Path, content: bytes, message: str = "is no file of `samtune export`") -> None:
    path.write_bytes(content)
    with pytest.raises(SamtuneError, match=message):
        load_exported(path)


def whole_or_refused(path: Path) -> None:
    said = ""
    try:
        found = load_exported(path).network.state_dict().keys()
    except SamtuneError as error:
        said = str(error)
    assert str(path) in said or found == small().state_dict().keys()


@pytest.mark.parametrize("format", FORMATS)
@few
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path: Path, format: str, content: bytes) -> None:
    refused(tmp_path / f"any.{format}", content)


@pytest.mark.parametrize("format", FORMATS)
@few
@given(data=st.data())
def test_a_damaged_file_is_refused_or_loads_whole(
    tmp_path: Path, format: str, data: st.DataObject
) -> None:
    """A changed bit of a weight is still a weight; anything else is refused in a sentence."""
    content = bytearray(exported(format))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / f"damaged.{format}"
    path.write_bytes(content)
    whole_or_refused(path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, format: str, share: float) -> None:
    content = exported(format)
    refused(tmp_path / f"half.{format}", content[: int(share * len(content))])


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    marker, content = tmp_path / "ran", io.BytesIO()
    about = {**said(RECIPE).as_dict(), "weights": small().state_dict(), "more": Malicious(marker)}
    torch.save(about, content, _use_new_zipfile_serialization=zipped)
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)
    assert marker.exists()  # the pickle is a live one
    marker.unlink()
    refused(tmp_path / "code.pt", content.getvalue())
    assert not marker.exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_and_a_missing_file_are_said_so(tmp_path: Path, format: str) -> None:
    (tmp_path / f"folder.{format}").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(SamtuneError, match=f"{name}.{format}"):
            load_exported(tmp_path / f"{name}.{format}")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnett"}, "cannot be loaded: No model named 'resnett'. Did you mean 'resnet'"),
        ({"name": 3}, "cannot be built"),
        ({"num_classes": 4}, r"is \(3, 4\), its model's \(4, 4\)"),
        ({"channels": [8]}, "cannot be built"),
        ({"channels": [10**9]}, "cannot be built"),
        ({"channels": [10**30]}, "cannot be built"),
        ({"channels": [-1]}, "cannot be built"),
        ({"blocks": [10**9]}, "more than the file's"),
        ({"blocks": "many"}, "cannot be built"),
        ({"image_size": None}, "cannot be built"),
        ({"image_size": 7}, "cannot be built"),
        ({"no_such": 1}, "cannot be built"),
        ({"in_channels": None}, "cannot be built"),
    ],
)
def test_an_absurd_recipe_is_refused_at_once(
    tmp_path: Path, format: str, change: dict[str, Any], message: str
) -> None:
    refused(tmp_path / f"absurd.{format}", exported(format, {**RECIPE, **change}), message)


@pytest.mark.parametrize("recipe", [None, 1, "resnet", [], [RECIPE]])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_recipe_is_refused(tmp_path: Path, format: str, recipe: Any) -> None:
    refused(tmp_path / f"none.{format}", exported(format, recipe), "does not name its model")


@pytest.mark.parametrize("missing", sorted(RECIPE.keys() - {"blocks", "channels"}))
def test_a_recipe_without_one_of_its_parts_is_refused(tmp_path: Path, missing: str) -> None:
    recipe = {key: value for key, value in RECIPE.items() if key != missing}
    refused(tmp_path / "part.pt", exported("pt", recipe), "cannot be built")


@few
@given(
    recipe=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=6,
    ),
    name=st.sampled_from(model_names()),
    key=st.sampled_from(["num_classes", "in_channels", "image_size", "blocks", "depth", "rest"]),
)
def test_any_value_in_a_recipe_is_refused_or_is_the_files_own(
    tmp_path: Path, recipe: Any, name: str, key: str
) -> None:
    path = tmp_path / "any.safetensors"
    for change in ({key: recipe}, {"name": name, key: 1}):
        about = {"samtune": json.dumps({**said({**RECIPE, **change}).as_dict()})}
        path.write_bytes(save(small().state_dict(), about))
        whole_or_refused(path)  # another image size is whole: a ResNet does not mind


@pytest.mark.parametrize("value", [1, None, "text", [torch.zeros(2)]])
def test_weights_that_are_no_tensors_are_refused(tmp_path: Path, value: Any) -> None:
    content = io.BytesIO()
    weights = {**small().state_dict(), "0.weight": value}
    torch.save({**said(RECIPE).as_dict(), "weights": weights}, content)
    refused(tmp_path / "weights.pt", content.getvalue())


@register_model("lazy_for_export")
class Lazy(nn.Sequential):
    """A model whose first weights wait for an image."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(5), nn.Linear(5, num_classes))


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_with_lazy_layers_comes_back(tmp_path: Path, format: Any) -> None:
    model = Lazy(num_classes=3).eval()
    images = torch.randn(2, 1, 4, 4)
    expected = model(images)
    recipe = {"name": "lazy_for_export", "in_channels": 1, "num_classes": 3, "image_size": [4, 4]}
    path = tmp_path / f"lazy.{format}"
    write(path, model, said(recipe, size=(4, 4)), format)
    assert torch.equal(load_exported(path).network(images), expected)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "timm/mobilenetv3_small_050"])
def test_the_file_of_a_pretrained_model_needs_no_pretrained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    recipe = {"name": name, "in_channels": 3, "num_classes": 3, "freeze": "backbone"}
    model = build_model(**recipe).eval()
    path = tmp_path / f"model.{format}"
    full = {**recipe, "image_size": [64, 64], "pretrained": True}
    write(path, model, said(full, channels=3, size=(64, 64)), format)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_exported(path).network(images), model(images))
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_from_before_that_lacks_its_normalisation_is_refused(
    tmp_path: Path, format: str
) -> None:
    """Else it would be wrong on ordinary images, as it was, and nobody would be told."""
    about = {"study": "s", "metrics": {}, "model": RECIPE, "config": {}}
    path = tmp_path / f"old.{format}"
    if format == "pt":
        torch.save({"weights": small().state_dict(), **about}, path)
    else:
        path.write_bytes(save(small().state_dict(), {"samtune": json.dumps(about)}))
    with pytest.raises(SamtuneError, match="does not say what its images are normalised by"):
        load_exported(path)


@pytest.mark.parametrize(
    "change",
    [{"mean": [0.1, 0.2]}, {"std": [0.0]}, {"std": "x"}, {"channels": 3}, {"height": None}],
)
def test_an_input_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    about = said(RECIPE).as_dict()
    about["input"] |= change
    content = save(small().state_dict(), {"samtune": json.dumps(about)})
    refused(tmp_path / "odd.safetensors", content)
