"""From a study file to a `StudyConfig`, or to one error that lists all its mistakes.

Raw mappings stop here. Whatever can be checked without the data set is checked: names, types, paths
of the search space, and that each end and choice of a range is a value the trial accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
)

from samtune.config.base import Config
from samtune.config.overrides import with_overrides
from samtune.config.problems import Problems, no_such_setting, shown
from samtune.config.schema import (
    NAME_PATTERN,
    SearchConfig,
    StudyConfig,
    TrialConfig,
)
from samtune.config.search_space import check_space
from samtune.config.space import Distribution, FloatRange
from samtune.config.trials import check_trial_at
from samtune.config.yaml_reader import Document, read_yaml
from samtune.errors import did_you_mean
from samtune.registry import MODELS, load_plugins


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
    document = with_overrides(read_yaml(path), overrides)
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
    trial = check_trial_at(raw.get("trial"), ("trial",), problems, folder)
    space = check_space(raw.get("search_space"), raw, trial, problems)
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


class _Header(Config):
    name: str = Field(pattern=NAME_PATTERN, strict=True)
    plugins: list[str] = Field(default_factory=list)


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


def to_yaml(config: StudyConfig) -> str:
    """The study file that `read_study` reads back as the same configuration."""
    from io import StringIO

    from ruamel.yaml import YAML

    raw: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["trial"] = config.trial.model_dump(mode="json")
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 100
    stream = StringIO()
    yaml.dump(raw, stream)
    return stream.getvalue()
