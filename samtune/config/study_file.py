"""From a study file to a `StudyConfig`, or to one error that lists all its mistakes.

Raw mappings stop here. Whatever can be checked without the data set is checked: names, types, paths
of the search space, and that each end and choice of a range is a value the trial accepts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
)

from samtune.config.base import NAME_PATTERN, Config
from samtune.config.baseline import baseline_name, without_sam
from samtune.config.checked_trial import CheckedTrial, check_trial_at
from samtune.config.confirm import ConfirmConfig
from samtune.config.objectives import COSTS
from samtune.config.overrides import refuse_searched, with_overrides
from samtune.config.problems import Problems, no_such_setting, shown
from samtune.config.schema import BaselineOf, SearchConfig, StudyConfig
from samtune.config.search_space import check_space
from samtune.config.space import Distribution, FloatRange
from samtune.config.trial import TrialConfig
from samtune.config.yaml_reader import Document, read_yaml
from samtune.errors import SamtuneError, did_you_mean
from samtune.registry import MODELS, load_plugins

WITHOUT_VALIDATION = (
    "is for `samtune confirm --with-validation`: here trials are compared by images that they "
    "must not train on."
)


def read_study(
    path: Path,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] | None = None,
    *,
    for_search: bool = True,
) -> StudyConfig:
    """Reads and checks a study file.

    Args:
        overrides: `KEY=VALUE` strings that go over what the file says.
        plugins: modules to import instead of those the file names.
        for_search: whether trials will draw what the search space has, so that it cannot be
            overridden.

    Raises:
        StudyFileError: it lists everything that is wrong.
        SamtuneError: an override is none, or would change nothing.
    """
    document = with_overrides(read_yaml(path), overrides)
    if for_search:
        refuse_searched(document, overrides)
    return check_study(document, path.absolute().parent, plugins)


def check_study(
    document: Document, folder: Path, plugins: Sequence[str] | None = None
) -> StudyConfig:
    """Checks a parsed study file; relative paths in it start from `folder`."""
    problems = Problems(document)
    raw = document.value
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else shown(raw)
        problems.add((), f"a study file is a mapping that starts with 'name:', got {found}.")
        problems.raise_if_any()
    wanted = raw.get("plugins", []) if plugins is None else list(plugins)
    if isinstance(wanted, list) and all(isinstance(module, str) for module in wanted):
        try:
            load_plugins(wanted, folder)
        except SamtuneError as error:  # the names it registers would all be unknown
            problems.add(("plugins",), f"{error}.")
            problems.raise_if_any()

    for key in raw:
        if key not in StudyConfig.model_fields:
            sections = [f"trial.{section}" for section in TrialConfig.model_fields]
            problems.add((key,), no_such_setting(key, StudyConfig.model_fields, sections))
    rest = {k: v for k, v in raw.items() if k in ("name", "plugins")}
    problems.validate(_Header, rest, ())
    search = _check_search(raw.get("study", {}), problems)
    trial = check_trial_at(raw.get("trial"), ("trial",), problems, folder)
    space = check_space(raw.get("search_space"), raw, trial, problems, folder)
    mode = _check_metric(search, raw.get("trial"), problems)
    _check_scheduler(search, trial, problems)
    _check_sampler(search, space, problems)
    _check_try_first(search, space, trial, problems)
    _check_baseline(search, space, trial, raw.get("name"), problems)
    confirm = baseline_of = None
    if "baseline_of" in raw:
        baseline_of = problems.validate(BaselineOf, raw["baseline_of"], ("baseline_of",))
    if "confirm" in raw:
        confirm = problems.validate(ConfirmConfig, raw["confirm"], ("confirm",))
    elif trial.config and trial.config.training.with_validation:
        problems.add(("trial", "training", "with_validation"), WITHOUT_VALIDATION)
    problems.raise_if_any()
    assert trial.config is not None
    return StudyConfig(
        name=raw["name"],
        trial=trial.config,
        search_space=space,
        study=search.model_copy(update={"mode": mode}),
        plugins=wanted,
        confirm=confirm,
        baseline_of=baseline_of,
    )


class _Header(Config):
    name: str = Field(pattern=NAME_PATTERN, strict=True)
    plugins: list[str] = Field(default_factory=list)


def _check_search(raw: Any, problems: Problems) -> SearchConfig:
    """How the search goes; what is wrong in it is noted, and left at its default."""
    checked = problems.validate(SearchConfig, raw, ("study",))
    if checked is not None or not isinstance(raw, dict):
        return checked or SearchConfig()
    return SearchConfig.model_validate(
        {key: value for key, value in raw.items() if not problems.any_at(("study", key))}
    )


def _check_metric(search: SearchConfig, trial: Any, problems: Problems) -> Literal["min", "max"]:
    """Whether the metric is better when small or large, as far as the model tells its task."""
    from samtune.tasks import study_metrics

    model = trial.get("model") if isinstance(trial, dict) else None
    name = model.get("name") if isinstance(model, dict) else None
    if not isinstance(name, str) or name not in MODELS or problems.any_at(("study", "metric")):
        return "max"
    metrics = study_metrics(MODELS[name].task or "classification")
    if not problems.any_at(("study", "metrics")):
        _check_metrics(search, list(metrics), problems)
    if search.metric not in metrics:
        if not problems.any_at(("study", "metrics")):
            problems.add(("study", "metric"), _no_metric(search.metric, list(metrics)))
        return "max"
    mode = metrics[search.metric]
    if search.mode not in (None, mode):
        problems.add(
            ("study", "mode"),
            f"{search.metric} is better when it is {mode}imal: leave mode out, or set it to "
            f"{mode}, got {search.mode!r}.",
        )
    return mode


def _check_metrics(search: SearchConfig, of_task: Sequence[str], problems: Problems) -> None:
    """The first is the metric that ranks trials and stops them; the others are told by name."""
    known = [*of_task, *COSTS]
    for i, name in enumerate(search.metrics):
        here = ("study", "metrics", i)
        if name not in known:
            problems.add(here, _no_metric(name, known))
        elif name in search.metrics[:i]:
            problems.add(here, f"{name} is there already; leave one out.")
        elif not i and name in COSTS:
            problems.add(
                here,
                f"the first ranks and stops trials by their epochs, as {name} cannot: take "
                f"one of {', '.join(of_task)}, and put {name} behind it.",
            )
        elif not i and name != search.metric:
            problems.add(
                here,
                f"the first is what trials are ranked by, but study.metric is {search.metric}: "
                "leave that out, or let both be the same.",
            )


def _no_metric(name: str, known: Sequence[str]) -> str:
    return f"no metric named {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}."


def _check_scheduler(search: SearchConfig, trial: CheckedTrial, problems: Problems) -> None:
    here, there = ("trial", "training", "epochs"), ("study", "scheduler", "grace_epochs")
    if "training" not in trial.sections or problems.any_at(("study", "scheduler")):
        return
    epochs = trial.sections["training"]["epochs"]
    grace_epochs = search.scheduler.grace(epochs)
    if search.scheduler.name == "none" or grace_epochs <= epochs:
        return
    if problems.is_overridden(here) and not problems.is_overridden(there):
        sentence = f"must be at least {'.'.join(there)} ({grace_epochs}), got {epochs}."
        problems.add(here, sentence)
    else:
        problems.add(there, f"must be at most training.epochs ({epochs}), got {grace_epochs}.")


def _check_sampler(
    search: SearchConfig, space: Mapping[str, list[Distribution]], problems: Problems
) -> None:
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
        problems.add(
            ("study", "sampler"),
            f"{search.sampler} cannot draw conditional parameters; take tpe, or no 'when'.",
        )


def _check_try_first(
    search: SearchConfig,
    space: Mapping[str, list[Distribution]],
    trial: CheckedTrial,
    problems: Problems,
) -> None:
    """Each value must be one that its trial could draw."""
    here = ("study", "try_first")
    if trial.config is None or problems.any_at(("search_space",)) or problems.any_at(here):
        return
    if len(search.try_first) > search.trials:
        count = f"holds {len(search.try_first)} settings, and study.trials is {search.trials}"
        problems.add(here, f"{count}: take more trials, or try fewer first.")
    study = StudyConfig.model_construct(name="check", trial=trial.config, search_space=dict(space))
    for i, values in enumerate(search.try_first):
        for path, value in values.items():
            if problem := _cannot_try(study, values, path, value):
                problems.add((*here, i, path), problem)


def _check_baseline(
    search: SearchConfig,
    space: Mapping[str, list[Distribution]],
    trial: CheckedTrial,
    name: Any,
    problems: Problems,
) -> None:
    """A baseline can be tuned where something beside SAM's own settings is searched."""
    if search.baseline != "tuned" or trial.config is None or problems.any_at(("search_space",)):
        return
    if not without_sam(space, trial.config):
        problems.add(
            ("study", "baseline"),
            "tuned has nothing to tune: all that is searched is SAM's own. Search one of the "
            "optimizer's settings, too, such as optimizer.lr: {float: [0.03, 0.3], log: true}, or "
            "take baseline: true.",
        )
    if isinstance(name, str) and not re.fullmatch(NAME_PATTERN, baseline_name(name)):
        problems.add(
            ("name",),
            f"is too long: its tuned baseline is to be called {baseline_name(name)}, and names "
            "have at most 64 characters.",
        )


def _cannot_try(study: StudyConfig, values: Mapping[str, Any], path: str, value: Any) -> str:
    if path not in study.search_space:
        return f"is not searched.{did_you_mean(path, study.search_space)}"
    conditions = {c for d in study.search_space[path] for c in d.when or {}}
    for condition in sorted(conditions & study.search_space.keys()):
        if condition not in values:
            return f"depends on {condition}, which is searched: give {condition}, too."
    found = study.active(path, values)
    if found is None:
        return "is not searched with the settings beside it: its condition does not hold."
    if not found[1].contains(value):
        return f"could not be drawn from its search space, got {shown(value)}."
    return ""


def to_yaml(config: StudyConfig) -> str:
    """The study file that `read_study` reads back as the same configuration."""
    from io import StringIO

    from ruamel.yaml import YAML

    raw: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["trial"] = config.trial.model_dump(mode="json")
    if config.confirm:
        raw["confirm"] = config.confirm.model_dump(mode="json")
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 100
    stream = StringIO()
    yaml.dump(raw, stream)
    return stream.getvalue()
