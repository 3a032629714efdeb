"""The best checkpoint to take home, reloaded and measured before anyone is told it is done."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from samtune.errors import SamtuneError
from samtune.export.about import about, recommendation
from samtune.export.base import ExportedModel, Format, with_preprocessing
from samtune.export.comparison import check_same, plain_images
from samtune.export.evaluation import measure_split
from samtune.export.formats import FORMATS
from samtune.export.preprocessing import Preprocessed
from samtune.study.study import Study, Trial
from samtune.study.weights import TrainedModel, load_trained


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        recorded, measured: the study's metric as the journal has it, and from the file itself.
            Weights (pt, safetensors) compute as in training: on the CPU it was trained on the two
            are equal, other hardware may differ in a last digit. Graphs compute in fp32; `measured`
            is None where they give too little for the metric, as capsules do for their loss.
        difference: the largest between an output of the file and the trial's model's.
        input: what goes in, in words: `8x8 grey`.
        classes: their names; empty where the data set knows none.
    """

    path: Path
    format: Format
    trial: str
    epoch: int
    metric: str
    recorded: float
    measured: float | None
    difference: float
    parameters: int
    input: str
    classes: list[str]


def export(
    study: Study, trial: Trial | None, path: Path, format: str, *, overwrite: bool = False
) -> Exported:
    """Writes a trial's model with its normalisation inside, and checks the file by using it.

    Args:
        trial: which one; None is the best.
        format: one of `samtune.export.FORMATS`.

    Raises:
        SamtuneError: there is nothing to export, the target exists, the model does not go into
            this format, or the file does not compute what the trial's model does.
    """
    kind = FORMATS[format]
    kind.check_installed()
    trial = trial or study.best
    if trial is None:
        raise SamtuneError(f"study {study.name!r} has no finished epoch yet: nothing to export")
    _check_target(path, kind, overwrite)
    trained = load_trained(trial, study.config.study.resources.cpus)
    said = about(study.name, study.metric, trained)
    said = replace(said, recommendation=recommendation(study))
    model = with_preprocessing(trained.model, said).eval()

    # Measured before the target exists: a file that is there is a file that works.
    temporary = path.with_name(f".{path.name}.unchecked")
    try:
        _remove(temporary)
        kind.write(temporary, model, said, plain_images(trained.data, 2))
        loaded = kind.read(temporary)
        difference = check_same(loaded, trained)
        measured = _metrics(loaded, trained).get(study.metric)
        temporary.replace(path)
    except OSError as error:
        raise SamtuneError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
    return Exported(
        path,
        kind,
        trained.trial,
        trained.epoch,
        study.metric,
        trained.metrics[study.metric],
        measured,
        difference,
        sum(p.numel() for p in trained.model.parameters()),
        said.input.in_words,
        said.classes,
    )


def model_of(trial: Trial) -> ExportedModel:
    """A trial's model as its export would load, without a file.

    Raises:
        SamtuneError: the trial has no weights on disk, or they are not what was written.
    """
    trained = load_trained(trial)
    said = about(trial.folder.study.name, trial.metric, trained)
    return ExportedModel(with_preprocessing(trained.model, said), said).eval()


def _check_target(path: Path, kind: Format, overwrite: bool) -> None:
    if kind.is_folder and path.is_dir() and not path.is_symlink():
        raise SamtuneError(f"folder {path} exists, and none is replaced: remove it or name another")
    if path.is_symlink() or (path.exists() and (kind.is_folder or not path.is_file())):
        raise SamtuneError(f"{path} is no ordinary file, so it is not replaced; name another")
    if path.exists() and not overwrite:
        raise SamtuneError(f"{path} exists; add --force to replace it")
    if not path.absolute().parent.is_dir():
        raise SamtuneError(f"{path} cannot be a file here: name a file in an existing folder")


def _metrics(loaded: ExportedModel, trained: TrainedModel) -> dict[str, float]:
    """The metrics on the validation split, as nearly as in training as the format allows."""
    if not isinstance(loaded.inner, Preprocessed):
        return {f"val_{k}": v for k, v in measure_split(loaded, trained.data).metrics.items()}
    same = all(
        torch.equal(value, loaded.network.state_dict()[name])
        for name, value in trained.model.state_dict().items()
    )
    if not same:
        raise SamtuneError("the exported file does not hold the trial's weights; it is removed")
    return replace(trained, model=loaded.network).evaluate()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
