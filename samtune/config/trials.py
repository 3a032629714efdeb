"""One trial from raw values: its configuration, checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samtune.config.optimizers import cannot_step, check_optimizer
from samtune.config.problems import Problems
from samtune.config.schema import (
    Named,
    StudyConfig,
    TrialConfig,
    TrialRecord,
)
from samtune.config.yaml_reader import Document, KeyPath
from samtune.errors import UnknownNameError
from samtune.registry import DATASETS, MODELS, Registry


def check_trial(raw: dict[str, Any]) -> TrialConfig:
    """The configuration of one trial.

    Raises:
        StudyFileError: it is not valid.
    """
    problems = Problems(Document("the sampled trial", raw, {}))
    trial = check_trial_at(raw, (), problems, folder=None)
    problems.raise_if_any()
    assert trial is not None
    return trial


def trial_with(study: StudyConfig, values: Mapping[str, Any]) -> TrialConfig:
    """The study's base trial with these values laid over it, checked as a whole again.

    Parameters of the base's model (or dataset, optimizer) go when another one is chosen.

    Raises:
        StudyFileError: the result is no valid trial.
    """
    raw = study.trial.model_dump(mode="json")
    for path, value in sorted(values.items(), key=lambda item: not item[0].endswith(".name")):
        section, _, key = path.partition(".")
        if key == "name" and raw[section]["name"] != value:
            raw[section] = {}
        raw[section][key] = value
    return check_trial(raw)


def record_of(study: StudyConfig, key: str, values: Mapping[str, Any]) -> TrialRecord:
    """What is written down of a trial when it is handed out."""
    trial = trial_with(study, values)
    return TrialRecord(
        key=key,
        values=dict(values),
        metric=study.study.metric,
        mode=study.mode,
        select=study.study.select,
        hash=trial.hash,
        config=trial,
    )


def check_trial_at(
    raw: Any, path: KeyPath, problems: Problems, folder: Path | None
) -> TrialConfig | None:
    """The trial with every parameter filled in and every path absolute."""
    before = len(problems)
    if not isinstance(raw, dict):
        wanted = ", ".join(TrialConfig.model_fields)
        problems.add(path, f"is required: a mapping with {wanted}.")
        return None
    problems.validate(TrialConfig, raw, path)
    resolved = dict(raw)
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        resolved[section] = _check_named(
            raw.get(section), (*path, section), registry, problems, folder
        )
    check_optimizer(raw.get("optimizer"), (*path, "optimizer"), problems)
    if len(problems) > before:
        return None
    from samtune.tasks import fits

    model = MODELS[resolved["model"]["name"]]
    dataset = DATASETS[resolved["dataset"]["name"]]
    if dataset.task and not fits(model.task, dataset.task):
        problems.add(
            (*path, "model"),
            f"{model.name} is for {model.task}, but dataset {dataset.name} is for {dataset.task}.",
        )
        return None
    _check_mixing(model.name, resolved["training"], path, problems)
    if len(problems) > before:
        return None
    checked: TrialConfig = TrialConfig.model_validate(resolved)
    if path and (reason := cannot_build(checked.model)):
        problems.add((*path, "model"), f"{reason}.")
        return None
    if path and (reason := cannot_step(checked)):
        problems.add((*path, "optimizer"), f"{reason}.")
        return None
    return checked


def _check_mixing(
    model: str, training: Mapping[str, Any], path: KeyPath, problems: Problems
) -> None:
    """Only classification has targets of which there can be two shares."""
    task = MODELS[model].task
    for setting in ("mixup", "cutmix"):
        if task != "classification" and (value := training.get(setting)):
            problems.add(
                (*path, "training", setting),
                f"must be 0 for {model}, got {value}: only classification has targets that can "
                f"be mixed, and this model is for {task}.",
            )


def _check_named(
    raw: Any, path: KeyPath, registry: Registry, problems: Problems, folder: Path | None
) -> Any:
    _import_registered()
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return raw  # said already
    try:
        entry = registry[raw["name"]]
    except UnknownNameError as error:
        problems.add((*path, "name"), str(error))
        return raw
    params = {key: value for key, value in raw.items() if key != "name"}
    checked = problems.validate(entry.schema, params, path)
    if checked is None:
        return raw
    resolved: dict[str, Any] = {"name": raw["name"]}
    for key, value in checked:
        relative = isinstance(value, Path) and folder is not None and not value.is_absolute()
        resolved[key] = str(folder / value) if relative else value
    return json.loads(json.dumps(resolved, default=str))


def cannot_build(model: Named) -> str:
    """What an architecture says against its parameters; it costs milliseconds and no memory.

    What also depends on the data set is `preflight`'s to find.
    """
    import torch

    from samtune.models import build_model

    # A size no architecture objects to, and only where one is needed: the real one may differ.
    size = (224, 224) if MODELS[model.name].requires("image_size") else None
    try:
        with torch.device("meta"):
            build_model(model.name, num_classes=10, in_channels=3, image_size=size, **model.params)
    except (ValueError, RuntimeError, OverflowError) as error:  # the latter of absurd sizes
        return str(error)
    return ""


def _import_registered() -> None:
    # Here and not above: they import torch, which `samtune --help` and `samtune list` do without.
    import samtune.data
    import samtune.models  # noqa: F401
