"""The best checkpoint to take home, reloaded and measured before anyone is told it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from samtune.analysis import response
from samtune.errors import SamtuneError
from samtune.export.formats import Format, load_exported, packed
from samtune.files import write_atomically
from samtune.study.study import Study, Trial
from samtune.study.weights import load_trained


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        recorded, measured: the study's metric as the journal has it, and from the file itself. On
            the CPU it was trained on they are equal; other hardware may differ in a last digit.
    """

    path: Path
    trial: str
    epoch: int
    metric: str
    recorded: float
    measured: float
    parameters: int


def export(
    study: Study, trial: Trial | None, path: Path, format: Format, *, overwrite: bool = False
) -> Exported:
    """Writes a trial's weights with the recipe of its model, and checks the file by using it.

    A `.pt` file is a dictionary for `torch.load(path, weights_only=True)`: `weights` is a state
    dict, `model` the arguments of `samtune.models.build_model`, `recommendation` what the study
    says of rho, where it searched rho. A safetensors file holds the same weights, with the rest as
    JSON under `samtune` in its header.

    Args:
        trial: which one; None is the best.

    Raises:
        SamtuneError: there is nothing to export, the target exists, or the file does not give the
            same weights back.
    """
    trial = trial or study.best
    if trial is None:
        raise SamtuneError(f"study {study.name!r} has no finished epoch yet: nothing to export")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SamtuneError(f"{path} is no ordinary file, so it is not replaced; name another")
    if path.exists() and not overwrite:
        raise SamtuneError(f"{path} exists; add --force to replace it")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SamtuneError(f"{path} cannot be a file here: name a file in an existing folder")
    trained = load_trained(trial, study.config.study.resources.cpus)
    about = {
        "study": study.name,
        "trial": trained.trial,
        "epoch": trained.epoch,
        "metrics": trained.metrics,
        "model": trained.recipe,
        "config": trial.config.model_dump(mode="json"),
    }
    if found := response(study):
        about["recommendation"] = {
            "rho": found.rho,
            "plateau": list(found.band.plateau) if found.band else None,
            "settings": found.band.settings if found.band else None,
            "sentence": found.sentence,
        }
    content = packed(trained.model, about, format)

    # Measured before the target exists: a file that is there is a file that works.
    temporary = path.with_name(f".{path.name}.unchecked")
    try:
        write_atomically(temporary, content)
        model = load_exported(temporary, format)
        if not _same_weights(model, trained.model):
            raise SamtuneError("the exported file does not hold the trial's weights; it is removed")
        measured = replace(trained, model=model).evaluate()[study.metric]
        recorded = trained.metrics[study.metric]
        temporary.replace(path)
    except OSError as error:
        raise SamtuneError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    parameters = sum(p.numel() for p in model.parameters())
    return Exported(
        path, trained.trial, trained.epoch, study.metric, recorded, measured, parameters
    )


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name].cpu()) for name, value in one.state_dict().items())
