"""From a study file to a `StudyConfig`, or to one error that lists all its mistakes.

Raw mappings stop here. Whatever can be checked without the data set is checked: names, types, paths
of the search space, and that each end and choice of a range is a value the trial accepts.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from samtune.config import (
    DISTRIBUTIONS,
    NAME_PATTERN,
    Config,
    Distribution,
    FloatRange,
    Named,
    SamConfig,
    SearchConfig,
    StudyConfig,
    TrainingConfig,
    TrialConfig,
    optimizer_class,
)
from samtune.errors import SamtuneError, StudyFileError, UnknownNameError, did_you_mean
from samtune.problems import COMMAND_LINE, Problems, no_such_setting
from samtune.registry import DATASETS, MODELS, Registry, load_plugins
from samtune.yaml_reader import Document, KeyPath, parse_value, read_yaml


def read_study(
    path: Path, overrides: Sequence[str] = (), plugins: Sequence[str] | None = None
) -> StudyConfig:
    """Reads and checks a study file.

    Args:
        overrides: `KEY=VALUE` strings that go over what the file says.
        plugins: modules to import instead of those the file names.

    Raises:
        StudyFileError: it lists everything that is wrong.
    """
    document = _with_overrides(read_yaml(path), overrides)
    return check_study(document, path.absolute().parent, plugins)


def check_study(
    document: Document, folder: Path, plugins: Sequence[str] | None = None
) -> StudyConfig:
    """Checks a parsed study file; relative paths in it start from `folder`."""
    from samtune.tasks import study_metrics

    problems = Problems(document)
    raw = document.value
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else f"a {type(raw).__name__}"
        problems.add((), f"a study file is a mapping that starts with 'name:', got {found}.")
        problems.raise_if_any()
    wanted = raw.get("plugins", []) if plugins is None else list(plugins)
    if isinstance(wanted, list) and all(isinstance(module, str) for module in wanted):
        load_plugins(wanted, folder)

    for key in raw:
        if key not in StudyConfig.model_fields:
            problems.add((key,), no_such_setting(str(key), StudyConfig.model_fields))
    rest = {k: v for k, v in raw.items() if k in ("name", "plugins")}
    problems.validate(_Header, rest, ())
    search = problems.validate(SearchConfig, raw.get("study", {}), ("study",))
    trial = _check_trial(raw.get("trial"), ("trial",), problems, folder)
    space = _check_space(raw.get("search_space"), raw, trial, problems)
    if trial and search:
        _check_search(search, trial, space, problems)
    problems.raise_if_any()
    assert trial is not None
    assert search is not None
    modes = study_metrics(MODELS[trial.model.name].task or "classification")
    search = search.model_copy(update={"mode": modes[search.metric]})
    return StudyConfig(
        name=raw["name"], trial=trial, search_space=space, study=search, plugins=wanted
    )


def check_trial(raw: dict[str, Any]) -> TrialConfig:
    """The configuration of one trial.

    Raises:
        StudyFileError: it is not valid.
    """
    problems = Problems(Document("the sampled trial", raw, {}))
    trial = _check_trial(raw, (), problems, folder=None)
    problems.raise_if_any()
    assert trial is not None
    return trial


class _Header(Config):
    name: str = Field(pattern=NAME_PATTERN, strict=True)
    plugins: list[str] = Field(default_factory=list)


def _with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    if not overrides:
        return document
    raw = json.loads(json.dumps(document.value)) if isinstance(document.value, dict) else {}
    lines = dict(document.lines)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise SamtuneError(f"{override!r} is no override: write KEY=VALUE, as in sam.rho=0.1")
        value = parse_value(text, f"the value of {key}")
        path = _override_path(key)
        target = raw
        for part in path[:-1]:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        if value is None:
            target.pop(path[-1], None)
        else:
            target[path[-1]] = value
        for known in [p for p in lines if p[: len(path)] == path]:
            del lines[known]
        lines[path] = COMMAND_LINE
    return Document(document.source, raw, lines)


def _override_path(key: str) -> tuple[str, ...]:
    first, _, rest = key.partition(".")
    if first == "search_space" and rest:
        return ("search_space", rest)
    parts = tuple(key.split("."))
    return ("trial", *parts) if first in TrialConfig.model_fields else parts


def _check_trial(
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
    _check_optimizer(raw.get("optimizer"), (*path, "optimizer"), problems)
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
    checked: TrialConfig = TrialConfig.model_validate(resolved)
    if path and (reason := _cannot_build(checked.model)):
        problems.add((*path, "model"), f"{reason}.")
        return None
    return checked


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


def _check_optimizer(raw: Any, path: KeyPath, problems: Problems) -> None:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return
    import torch

    try:
        cls = optimizer_class(raw["name"])
    except UnknownNameError as error:
        problems.add((*path, "name"), str(error))
        return
    params = {key: value for key, value in raw.items() if key != "name"}
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    before = len(problems)
    for key, value in params.items():
        if key not in known:
            problems.add((*path, key), no_such_setting(key, known))
        elif isinstance(value, float) and not math.isfinite(value):
            problems.add((*path, key), f"must be a finite number, got {value}.")
    lr = params.get("lr", 1.0)
    if not isinstance(lr, int | float) or isinstance(lr, bool) or lr <= 0:
        problems.add((*path, "lr"), f"must be a number above 0, got {lr!r}.")
    if len(problems) > before:
        return
    if isinstance(params.get("betas"), list):
        params["betas"] = tuple(params["betas"])
    try:
        cls([torch.nn.Parameter(torch.zeros(2, 2))], **params)
    except Exception as error:  # noqa: BLE001 - whatever torch says against these values
        problems.add(path, f"torch.optim.{cls.__name__} refuses this: {error}.")


def _check_space(
    raw: Any, whole: Mapping[str, Any], trial: TrialConfig | None, problems: Problems
) -> dict[str, list[Distribution]]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.add(("search_space",), "must map paths such as sam.rho to distributions.")
        return {}
    space: dict[str, list[Distribution]] = {}
    for path, entry in raw.items():
        where: KeyPath = ("search_space", path)
        if problem := _unknown_path(path, whole, raw):
            problems.add(where, problem)
            continue
        found = []
        for i, item in enumerate(entry if isinstance(entry, list) else [entry]):
            place = (*where, i) if isinstance(entry, list) else where
            if distribution := _check_distribution(item, place, problems):
                found.append(distribution)
                for condition in distribution.when or {}:
                    if condition not in raw and not _known_path(condition, whole, raw):
                        problems.add(
                            (*place, "when"),
                            f"{condition} is no setting{did_you_mean(condition, raw)}",
                        )
        space[path] = found
    if trial is not None and not len(problems):
        _check_values(space, trial, problems)
    return _conditions_first(space, problems)


def _check_distribution(raw: Any, place: KeyPath, problems: Problems) -> Distribution | None:
    if isinstance(raw, dict):
        for key, cls in DISTRIBUTIONS.items():
            if key in raw:
                checked: Distribution | None = problems.validate(cls, raw, place)
                return checked
    problems.add(
        place, f"must be {{float: [a, b]}}, {{int: [a, b]}} or {{choice: [...]}}, got {raw!r}."
    )
    return None


def _unknown_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> str:
    """What is wrong with a path into `trial`, or nothing."""
    if path == "training.epochs":
        return "is the scheduler's budget and cannot be searched; set trial.training.epochs."
    if path == "sam.adaptive":
        return "is a shorthand; search sam.variant: {choice: [sam, asam]} instead."
    if path in ("training.seed", "dataset.name", "dataset.root"):
        return "cannot be searched: trials would not compare."
    if _known_path(path, whole, raw_space):
        return ""
    known = _paths(whole, raw_space)
    return f"trial has no such setting.{did_you_mean(path, known)}"


def _known_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> bool:
    known = set(_paths(whole, raw_space))
    return path in known or f"{path.partition('.')[0]}.*" in known


def _paths(whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> Iterator[str]:
    """Every path into `trial` that a search space may name; `model.*` if the model is unknown."""
    for section, cls in (("sam", SamConfig), ("training", TrainingConfig)):
        yield from (f"{section}.{key}" for key in cls.model_fields)
    trial = whole.get("trial")
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        yield f"{section}.name"
        for name in _possible_names(section, trial, raw_space):
            known = registry[name].schema.model_fields if name in registry else ["*"]
            yield from (f"{section}.{key}" for key in known)
    yield "optimizer.name"
    for name in _possible_names("optimizer", trial, raw_space):
        try:
            signature = inspect.signature(optimizer_class(name))
        except UnknownNameError:
            yield "optimizer.*"
            continue
        yield from (f"optimizer.{key}" for key in signature.parameters if key != "params")


def _possible_names(section: str, trial: Any, raw_space: Mapping[str, Any]) -> list[str]:
    names = []
    if isinstance(trial, dict) and isinstance(trial.get(section), dict):
        names.append(trial[section].get("name"))
    entry = raw_space.get(f"{section}.name")
    for choices in entry if isinstance(entry, list) else [entry]:
        if isinstance(choices, dict) and isinstance(choices.get("choice"), list):
            names += choices["choice"]
    return [name for name in names if isinstance(name, str)]


def _check_values(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: Problems
) -> None:
    """Lays each end and choice over the base trial, so that a bad range fails before trial 37."""
    base = StudyConfig.model_construct(name="check", trial=trial)
    for path, distributions in space.items():
        for distribution in distributions:
            needed = {
                key: allowed[0] if isinstance(allowed, list) else allowed
                for key, allowed in (distribution.when or {}).items()
            }
            few = distribution.examples
            for value in few if len(few) <= 64 else (few[0], few[-1]):
                try:
                    changed = base.trial_with({**needed, path: value})
                except StudyFileError as error:
                    reason = error.problems[0].removeprefix(f"{path}: ")
                    problems.add(("search_space", path), f"allows {value!r}: {reason}")
                    break
                if path.startswith("model.") and (reason := _cannot_build(changed.model)):
                    problems.add(("search_space", path), f"allows {value!r}: {reason}.")
                    break


def _cannot_build(model: Named) -> str:
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


def _conditions_first(
    space: dict[str, list[Distribution]], problems: Problems
) -> dict[str, list[Distribution]]:
    """The same space in an order in which every condition is drawn before what depends on it."""
    ordered: dict[str, list[Distribution]] = {}
    waiting = dict(space)
    while waiting:
        ready = [
            path
            for path, distributions in waiting.items()
            if not any(c in waiting for d in distributions for c in d.when or {})
        ]
        if not ready:
            problems.add(("search_space",), f"the conditions of {', '.join(waiting)} form a ring.")
            return space
        for path in ready:
            ordered[path] = waiting.pop(path)
    return ordered


def _check_search(
    search: SearchConfig,
    trial: TrialConfig,
    space: Mapping[str, list[Distribution]],
    problems: Problems,
) -> None:
    from samtune.tasks import study_metrics

    metrics = study_metrics(MODELS[trial.model.name].task or "classification")
    if search.metric not in metrics:
        problems.add(
            ("study", "metric"),
            f"no metric named {search.metric!r}.{did_you_mean(search.metric, metrics)} "
            f"There are: {', '.join(metrics)}.",
        )
    elif search.mode not in (None, metrics[search.metric]):
        problems.add(
            ("study", "mode"), f"{search.metric} is better when it is {metrics[search.metric]}imal."
        )
    if search.scheduler.name != "none" and search.scheduler.grace_epochs > trial.training.epochs:
        problems.add(
            ("study", "scheduler", "grace_epochs"),
            f"must be at most training.epochs ({trial.training.epochs}), "
            f"got {search.scheduler.grace_epochs}.",
        )
    if search.sampler == "grid":
        endless = [
            path
            for path, distributions in space.items()
            if any(isinstance(d, FloatRange) and d.step is None for d in distributions)
        ]
        if endless:
            problems.add(
                ("study", "sampler"), f"grid needs a step or a choice for {', '.join(endless)}."
            )
    if search.sampler in ("grid", "cmaes") and any(d.when for ds in space.values() for d in ds):
        problems.add(("study", "sampler"), f"{search.sampler} cannot draw conditional parameters.")


def _import_registered() -> None:
    # Here and not above: they import torch, which `samtune --help` and `samtune list` do without.
    import samtune.data
    import samtune.models  # noqa: F401
