"""The `search_space` section: its paths, and that the trial accepts what it allows."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from samtune.config.checked_trial import (
    CheckedTrial,
    absolute,
    cannot_build,
    cannot_mix,
    check_section,
    does_not_fit,
    laid_over,
    trial_with,
)
from samtune.config.optimizers import cannot_step, optimizer_class
from samtune.config.problems import Problems, shown
from samtune.config.schema import StudyConfig
from samtune.config.space import DISTRIBUTIONS, Choice, Distribution
from samtune.config.trial import Named, SamConfig, TrainingConfig, TrialConfig
from samtune.config.yaml_reader import Document, KeyPath
from samtune.errors import StudyFileError, UnknownNameError, did_you_mean
from samtune.registry import DATASETS, MODELS
from samtune.secrets import HIDDEN, is_secret

MOST_COMBINATIONS = 1024
# Settings that rule each other out in some combinations.
EXCLUSIVE = (
    "sam.variant",
    "sam.micro_ascent",
    "training.ema_decay",
    "training.average_from",
)
MOST_LISTED = 20


def check_space(
    raw: Any,
    whole: Mapping[str, Any],
    trial: CheckedTrial,
    problems: Problems,
    folder: Path | None = None,
) -> dict[str, list[Distribution]]:
    """The distributions by path, every condition before what depends on it.

    Args:
        folder: where relative paths among choices start from.
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.add(
            ("search_space",),
            f"must map paths such as sam.rho to distributions, got {shown(raw)}.",
        )
        return {}
    space: dict[str, list[Distribution]] = {}
    for path, entry in raw.items():
        where: KeyPath = ("search_space", path)
        if problem := _unknown_path(path, whole, raw):
            problems.add(where, problem)
            continue
        found = []
        if entry == []:
            problems.add(where, "needs a distribution, such as {float: [0.1, 1.0]}, got [].")
        for i, item in enumerate(entry if isinstance(entry, list) else [entry]):
            place = (*where, i) if isinstance(entry, list) else where
            if distribution := _check_distribution(item, place, problems):
                found.append(distribution)
                for condition in distribution.when or {}:
                    if condition not in raw and not _known_path(condition, whole, raw):
                        problems.add(
                            (*place, "when"),
                            f"{condition} is no setting: write the path of one, searched "
                            "or under trial, as in {sam.variant: asam}."
                            + did_you_mean(condition, [*raw, *_paths(whole, raw)]),
                        )
        space[path] = found
    space = _resolved(space, whole, folder)
    _check_values(space, trial.sections, problems)
    ordered = _conditions_first(space, problems)
    if trial.config is not None and not problems.any_at(("search_space",)):
        _check_optimizers(ordered, trial.config, problems)
    return ordered


def _resolved(
    space: dict[str, list[Distribution]], whole: Mapping[str, Any], folder: Path | None
) -> dict[str, list[Distribution]]:
    """The same space with choices, and conditions on them, as the trials will have them.

    Paths are absolute there, and code that was given in Python has its whole name.
    """
    conditions = {c for ds in space.values() for d in ds for c in d.when or {}}
    of_path = {
        path: resolve
        for path in {*space, *conditions}
        if (resolve := _resolver(path, whole, space, folder))
    }

    def changed(path: str, distribution: Distribution) -> Distribution:
        when = {
            condition: _each(of_path[condition], allowed) if condition in of_path else allowed
            for condition, allowed in (distribution.when or {}).items()
        }
        update: dict[str, Any] = {"when": when} if when else {}
        if path in of_path and isinstance(distribution, Choice):
            update["choice"] = _each(of_path[path], distribution.choice)
        return distribution.model_copy(update=update)

    return {
        path: [changed(path, d) for d in distributions] for path, distributions in space.items()
    }


def _resolver(
    path: str, whole: Mapping[str, Any], space: Mapping[str, Any], folder: Path | None
) -> Callable[[str], Any] | None:
    """What makes a text at this path into what a trial has there; None where it stays."""
    if path == "model.name":
        return lambda name: MODELS[name].name if name in MODELS else name
    if folder is not None and _is_a_path(path, whole, space):
        return lambda text: absolute(Path(text), folder)
    return None


def _each(resolve: Callable[[str], Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_each(resolve, item) for item in value]
    return resolve(value) if isinstance(value, str) else value


def _is_a_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> bool:
    """Whether a searched setting is a path to a file or folder, by its factory's signature."""
    section, _, key = path.partition(".")
    registry = {"model": MODELS, "dataset": DATASETS}.get(section)
    for name in _possible_names(section, whole.get("trial"), raw_space) if registry else ():
        if registry and name in registry and (info := registry[name].schema.model_fields.get(key)):
            return Path in (info.annotation, *get_args(info.annotation))
    return False


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
    if path in ("training.seed", "training.with_validation", "dataset.name", "dataset.root"):
        return "cannot be searched: trials would not compare. Begin a study for each."
    if _known_path(path, whole, raw_space):
        return ""
    known = list(_paths(whole, raw_space))
    section = path.partition(".")[0]
    beside = [other for other in known if other.startswith(f"{section}.")] or known
    listed = f" There are: {', '.join(beside[:MOST_LISTED])}"
    listed += ", ..." if len(beside) > MOST_LISTED else "."
    return f"trial has no such setting.{did_you_mean(path, known) or listed}"


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
        # Without a name that can be read anything may be meant; that is said of the name.
        for name in _possible_names(section, trial, raw_space) or [""]:
            known = registry[name].schema.model_fields if name in registry else ["*"]
            yield from (f"{section}.{key}" for key in known)
    yield "optimizer.name"
    for name in _possible_names("optimizer", trial, raw_space) or [""]:
        try:
            signature = inspect.signature(optimizer_class(name))
        except UnknownNameError:
            yield "optimizer.*"
            continue
        yield from (f"optimizer.{key}" for key in signature.parameters if key != "params")


def _possible_names(section: str, trial: Any, space: Mapping[str, Any]) -> list[str]:
    """The base trial's, and those to choose from, in a raw or in a checked space."""
    names = []
    if isinstance(trial, dict) and isinstance(trial.get(section), dict):
        names.append(trial[section].get("name"))
    entry = space.get(f"{section}.name")
    for choices in entry if isinstance(entry, list) else [entry]:
        if isinstance(choices, Choice):
            names += choices.choice
        elif isinstance(choices, dict) and isinstance(choices.get("choice"), list):
            names += choices["choice"]
    return [name for name in names if isinstance(name, str)]


def _check_values(
    space: Mapping[str, list[Distribution]],
    sections: Mapping[str, dict[str, Any]],
    problems: Problems,
) -> None:
    """Lays each end and choice over the base trial, so that a bad range fails before trial 37."""
    for path, distributions in space.items():
        section = path.partition(".")[0]
        if section not in sections or problems.any_at(("search_space", path)):
            continue
        for distribution in distributions:
            needed = {
                condition: allowed[0] if isinstance(allowed, list) else allowed
                for condition, allowed in (distribution.when or {}).items()
                if condition.partition(".")[0] == section
            }
            few = distribution.examples
            for value in few if len(few) <= 64 else (few[0], few[-1]):
                if reason := _refused(section, sections, {**needed, path: value}):
                    reason = reason.removeprefix(f"{path}: ").rstrip(".")
                    found = HIDDEN if is_secret(path) else shown(value)
                    problems.add(("search_space", path), f"allows {found}: {reason}.")
                    break


def _refused(
    section: str, sections: Mapping[str, dict[str, Any]], values: Mapping[str, Any]
) -> str:
    """What is wrong with one section of the trial with these values in it."""
    raw = laid_over({section: sections[section]}, values)[section]
    problems = Problems(Document("a value of the search space", raw, {}))
    checked = check_section(section, raw, (section,), problems, folder=None)
    if checked is None:
        return problems.sentences[0]
    model, training = sections.get("model"), sections.get("training")
    if section == "training" and model and (found := cannot_mix(model["name"], checked)):
        return f"training.{found[0]}: {found[1]}"
    if section != "model":
        return ""
    if training and (found := cannot_mix(checked["name"], training)):
        return f"training.{found[0]}: {found[1]}"
    dataset = sections.get("dataset")
    unfit = does_not_fit(checked["name"], dataset["name"]) if dataset else ""
    return unfit or cannot_build(Named.model_validate(checked))


def _check_optimizers(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: Problems
) -> None:
    """Tries each combination of optimizer, variant and what they exclude, of ranges their ends."""
    own = {path for path in space if path.startswith("optimizer.") or path in EXCLUSIVE}
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
            changed = trial_with(base, values)
            reason = cannot_step(changed.optimizer, changed.sam)
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
            problems.add(
                ("search_space",),
                f"the conditions of {', '.join(waiting)} form a ring; take one 'when' out.",
            )
            return space
        for path in ready:
            ordered[path] = waiting.pop(path)
    return ordered
