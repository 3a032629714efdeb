"""One trial from raw values: its configuration, checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtune.config.optimizers import cannot_step, check_optimizer
from samtune.config.problems import Problems, no_such_setting
from samtune.config.schema import StudyConfig
from samtune.config.trial import Named, SamConfig, TrainingConfig, TrialConfig, TrialRecord
from samtune.config.yaml_reader import Document, KeyPath
from samtune.errors import SamtuneError, raised
from samtune.registry import DATASETS, MODELS, Registry
from samtune.secrets import said_openly

EXAMPLES = {
    "model": "{name: wide_resnet}",
    "dataset": "{name: digits}",
    "optimizer": "{name: sgd, lr: 0.1}",
    "training": "{epochs: 20}",
}


def check_trial(raw: dict[str, Any]) -> TrialConfig:
    """The configuration of one trial.

    Raises:
        StudyFileError: it is not valid.
    """
    problems = Problems(Document("the sampled trial", raw, {}))
    trial = check_trial_at(raw, (), problems, folder=None).config
    problems.raise_if_any()
    assert trial is not None
    return trial


def trial_with(study: StudyConfig, values: Mapping[str, Any]) -> TrialConfig:
    """The study's base trial with these values laid over it, checked as a whole again.

    Parameters of the base's model (or dataset, optimizer) go when another one is chosen.

    Raises:
        StudyFileError: the result is no valid trial.
    """
    return check_trial(laid_over(study.trial.model_dump(mode="json"), values))


def laid_over(sections: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's sections with values, by path, in the place of their own; names come first."""
    raw = {section: dict(settings) for section, settings in sections.items()}
    for path, value in sorted(values.items(), key=lambda item: not item[0].endswith(".name")):
        section, _, key = path.partition(".")
        if key == "name" and raw[section].get("name") != value:
            raw[section] = {}
        raw[section][key] = value
    return raw


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


@dataclass(frozen=True)
class CheckedTrial:
    """What is right in a `trial:`.

    Attributes:
        sections: those without a mistake, every parameter filled in and every path absolute.
        config: the trial, if nothing is wrong with it.
    """

    sections: dict[str, dict[str, Any]]
    config: TrialConfig | None


def check_trial_at(
    raw: Any, path: KeyPath, problems: Problems, folder: Path | None
) -> CheckedTrial:
    """Checks a trial section by section, so that a mistake in one hides none in another."""
    before = len(problems)
    if not isinstance(raw, dict):
        wanted = ", ".join(TrialConfig.model_fields)
        problems.add(path, f"is required: a mapping with {wanted}.")
        return CheckedTrial({}, None)
    for key in raw:
        if key not in TrialConfig.model_fields:
            problems.add((*path, key), no_such_setting(key, TrialConfig.model_fields))
    sections = {}
    for section, info in TrialConfig.model_fields.items():
        if section not in raw and info.is_required():
            problems.add((*path, section), f"is required: a mapping such as {EXAMPLES[section]}.")
            continue
        checked = check_section(section, raw.get(section, {}), (*path, section), problems, folder)
        if checked is not None:
            sections[section] = checked
    _check_together(sections, path, problems)
    whole = None if len(problems) > before else TrialConfig.model_validate(sections)
    return CheckedTrial(sections, whole)


def check_section(
    section: str, raw: Any, path: KeyPath, problems: Problems, folder: Path | None
) -> dict[str, Any] | None:
    """One section of a trial, complete; None, and the problems noted, if something is wrong.

    Args:
        folder: where relative paths start from; None where they are absolute already.
    """
    before = len(problems)
    resolved = raw
    match section:
        case "sam":
            problems.validate(SamConfig, raw, path)
        case "training":
            problems.validate(TrainingConfig, raw, path)
        case "optimizer":
            if problems.validate(Named, raw, path):
                check_optimizer(raw, path, problems)
        case _:
            if problems.validate(Named, raw, path):
                registry = MODELS if section == "model" else DATASETS
                resolved = _check_registered(raw, path, registry, problems, folder)
    return None if len(problems) > before else resolved


def _check_together(sections: dict[str, dict[str, Any]], path: KeyPath, problems: Problems) -> None:
    """What sections say to each other, and torch to them; a model that it refuses is taken out."""
    model, dataset = sections.get("model"), sections.get("dataset")
    if model and dataset and (reason := does_not_fit(model["name"], dataset["name"])):
        problems.add((*path, "model"), f"{reason}.")
    training = sections.get("training")
    if model and training and (found := cannot_mix(model["name"], training)):
        problems.add((*path, "training", found[0]), f"{found[1]}.")
    if not path:
        return  # a sampled trial: its study has tried all of this
    if model and (reason := cannot_build(Named.model_validate(model))):
        problems.add((*path, "model"), f"{reason}.")
        del sections["model"]
    if "optimizer" in sections and "sam" in sections:
        optimizer, sam = sections["optimizer"], sections["sam"]
        reason = cannot_step(Named.model_validate(optimizer), SamConfig.model_validate(sam))
        if reason:
            problems.add((*path, "optimizer"), f"{reason}.")


def does_not_fit(model: str, dataset: str) -> str:
    """What speaks against a model on a data set, as far as their tasks tell."""
    from samtune.tasks import fits

    wanted, given = MODELS[model].task, DATASETS[dataset].task
    if not given or fits(wanted, given):
        return ""
    return (
        f"{model} is for {wanted}, but dataset {dataset} is for {given}; `samtune models` lists "
        "each model with its task"
    )


def cannot_mix(model: str, training: Mapping[str, Any]) -> tuple[str, str] | None:
    """The setting that mixes images although the model's task cannot, and what is wrong with it.

    Only classification has targets of which there can be two shares.
    """
    task = MODELS[model].task
    for setting in ("mixup", "cutmix"):
        if task != "classification" and (value := training.get(setting)):
            return setting, (
                f"must be 0 for {model}, got {value}: only classification has targets that can be "
                f"mixed, and this model is for {task}"
            )
    return None


def _check_registered(
    raw: dict[str, Any], path: KeyPath, registry: Registry, problems: Problems, folder: Path | None
) -> dict[str, Any]:
    _import_registered()
    try:
        entry = registry[raw["name"]]
    except SamtuneError as error:  # no such name, or a family whose library is not installed
        problems.add((*path, "name"), str(error))
        return raw
    params = {key: value for key, value in raw.items() if key != "name"}
    for key, value in params.items():
        if problem := said_openly(key, value):
            problems.add((*path, key), problem)
    checked = problems.validate(entry.schema, params, path)
    if checked is None:
        return raw
    resolved: dict[str, Any] = {"name": entry.name}
    resolved |= {key: absolute(value, folder) for key, value in checked}
    plain: dict[str, Any] = json.loads(json.dumps(resolved, default=str))
    return plain


def absolute(value: Any, folder: Path | None) -> Any:
    """A relative path as one from `folder`; anything else as it is."""
    if not isinstance(value, Path) or folder is None:
        return value
    return str(folder / value.expanduser())


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
    except (
        SamtuneError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:  # the latter of absurd sizes
        return str(error).rstrip(".") or raised(error)
    except Exception as error:  # noqa: BLE001 - foreign code: anything can come
        return f"{model.name} cannot be built: {raised(error)}"
    return ""


def _import_registered() -> None:
    # Here and not above: they import torch, which `samtune --help` and `samtune list` do without.
    import samtune.data
    import samtune.models  # noqa: F401 - importing registers
