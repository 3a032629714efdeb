"""From a study file to a `StudyConfig`, or to one error that lists all its mistakes.

Raw mappings stop here. Whatever can be checked without the data set is checked: names, types, paths
of the search space, and that each end and choice of a range is a value the trial accepts.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from samtune.config import (
    DISTRIBUTIONS,
    NAME_PATTERN,
    Choice,
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
from samtune.problems import COMMAND_LINE, Problems, no_such_setting, shown
from samtune.registry import DATASETS, MODELS, Entry, Registry, load_plugins
from samtune.yaml_reader import Document, KeyPath, parse_value, read_yaml

MOST_COMBINATIONS = 1024
NULL = ("null", "Null", "NULL", "~")


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
        found = "nothing" if raw is None else shown(raw)
        problems.add((), f"a study file is a mapping that starts with 'name:', got {found}.")
        problems.raise_if_any()
    wanted = raw.get("plugins", []) if plugins is None else list(plugins)
    if isinstance(wanted, list) and all(isinstance(module, str) for module in wanted):
        load_plugins(wanted, folder)

    for key in raw:
        if key not in StudyConfig.model_fields:
            sections = [f"trial.{section}" for section in TrialConfig.model_fields]
            problems.add((key,), no_such_setting(key, StudyConfig.model_fields, sections))
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
    if not overrides or not isinstance(document.value, dict):
        return document
    raw = json.loads(json.dumps(document.value))
    lines = dict(document.lines)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.split(".")):
            raise SamtuneError(f"{override!r} is no override: write KEY=VALUE, as in sam.rho=0.1")
        value = parse_value(text, f"the value of {key}")
        if value is None and text.strip() not in NULL:
            raise SamtuneError(
                f"{override!r} has no value: write {key}=VALUE, or {key}=null to take it out"
            )
        path = _override_path(key)
        target = raw
        for end, part in enumerate(path[:-1], 1):
            if target.get(part) is None:
                target[part] = {}
            if not isinstance(target[part], dict):
                place = ".".join(path[:end])
                raise SamtuneError(
                    f"{override!r} does not fit {document.source}, where {place} is "
                    f"{shown(target[part])}: override the whole of it, as in '{place}={{...}}'"
                )
            target = target[part]
        if value is None and path[-1] in target:
            del target[path[-1]]
        else:
            target[path[-1]] = value  # an unknown one is found later, null or not
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
    if path and (reason := _cannot_step(checked)):
        problems.add((*path, "optimizer"), f"{reason}.")
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
    try:
        entry = _optimizer(raw["name"])
    except UnknownNameError as error:
        problems.add((*path, "name"), str(error))
        return
    params = {key: value for key, value in raw.items() if key != "name"}
    problems.validate(entry.schema, params, path)
    lr = params.get("lr")
    if isinstance(lr, int | float) and lr <= 0:
        problems.add((*path, "lr"), f"must be a number above 0, got {lr}.")


@functools.cache
def _optimizer(name: str) -> Entry:
    """A `torch.optim` class, whose signature is its schema as a model's is."""
    return Entry(name, optimizer_class(name), None, frozenset({"params"}))


def _cannot_step(trial: TrialConfig) -> str:
    """What torch or SAM says against the trial's optimizer, from two steps with it.

    Much is refused in a step only: wrong types, weights of a shape that Muon cannot take, numbers
    that overflow.
    """
    import torch

    from samtune.sam import SAM

    cls = optimizer_class(trial.optimizer.name)
    # A convolution's weights and a bias: what about every model has.
    weights = [torch.nn.Parameter(torch.ones(2, 2, 1, 1)), torch.nn.Parameter(torch.ones(2))]
    try:
        optimizer = SAM(weights, cls, **trial.optimizer.params)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.5)
            optimizer.descend()
    except Exception as error:  # noqa: BLE001 - whatever torch says against these values
        reason = " ".join(str(error).split()).rstrip(".")
        return f"torch.optim.{cls.__name__} refuses this: {reason}"
    if not all(weight.isfinite().all() for weight in weights):
        return f"torch.optim.{cls.__name__} takes the weights to infinity in two steps"
    if trial.sam.variant == "msam":
        try:
            with optimizer.at_momentum_neighbor():
                pass
        except ValueError as error:
            return f"{error}: set optimizer.momentum above 0, or take another sam.variant"
    return ""


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
        if entry == []:
            problems.add(where, "needs a distribution.")
        for i, item in enumerate(entry if isinstance(entry, list) else [entry]):
            place = (*where, i) if isinstance(entry, list) else where
            if distribution := _check_distribution(item, place, problems):
                found.append(distribution)
                for condition in distribution.when or {}:
                    if condition not in raw and not _known_path(condition, whole, raw):
                        problems.add(
                            (*place, "when"),
                            f"{condition} is no setting."
                            + did_you_mean(condition, [*raw, *_paths(whole, raw)]),
                        )
        space[path] = found
    if trial is not None and not len(problems):
        _check_values(space, trial, problems)
    ordered = _conditions_first(space, problems)
    if trial is not None and not len(problems):
        _check_optimizers(ordered, trial, problems)
    return ordered


def _check_distribution(raw: Any, place: KeyPath, problems: Problems) -> Distribution | None:
    if isinstance(raw, dict):
        for key, cls in DISTRIBUTIONS.items():
            if key in raw:
                checked: Distribution | None = problems.validate(cls, raw, place)
                return checked
    problems.add(
        place, f"must be {{float: [a, b]}}, {{int: [a, b]}} or {{choice: [...]}}, got {shown(raw)}."
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


def _check_optimizers(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: Problems
) -> None:
    """Tries a step with each combination of optimizer and variant, of ranges with their ends."""
    own = {path for path in space if path.startswith("optimizer.") or path == "sam.variant"}
    needed = set(own)
    for path in reversed(list(space)):  # conditions stand before what depends on them
        if path in needed:
            needed |= {c for d in space[path] for c in d.when or {}}
    ends = {path: [_its_ends(d) for d in space[path]] for path in space}
    base = StudyConfig.model_construct(name="check", trial=trial, search_space=ends)
    combinations = base.combinations([path for path in space if path in needed])
    for drawn in itertools.islice(combinations, MOST_COMBINATIONS if own else 0):
        values = {path: value for path, value in drawn.items() if path in own}
        try:
            reason = _cannot_step(base.trial_with(values))
        except StudyFileError as error:
            reason = " ".join(error.problems)
        if reason:
            allowed = ", ".join(f"{path} = {shown(value)}" for path, value in values.items())
            problems.add(("search_space",), f"allows {allowed}: {reason.rstrip('.')}.")
            return


def _its_ends(distribution: Distribution) -> Distribution:
    if isinstance(distribution, Choice):
        return distribution
    return Choice(choice=list(distribution.bounds), when=distribution.when)


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
    epochs, grace_epochs = trial.training.epochs, search.scheduler.grace_epochs
    if search.scheduler.name != "none" and grace_epochs > epochs:
        here, there = ("trial", "training", "epochs"), ("study", "scheduler", "grace_epochs")
        if problems.is_overridden(here) and not problems.is_overridden(there):
            sentence = f"must be at least {'.'.join(there)} ({grace_epochs}), got {epochs}."
            problems.add(here, sentence)
        else:
            problems.add(there, f"must be at most training.epochs ({epochs}), got {grace_epochs}.")
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
