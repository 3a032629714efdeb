"""What a study file may say, and every mistake in one that does not.

A `TrialConfig` is one complete training run; a `StudyConfig` is that run, the distributions its
settings are drawn from, and how the search goes. Raw mappings stop here: `read_study` turns a file
into a `StudyConfig` or raises one error that lists all problems with their lines.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from samtune.errors import SamtuneError, StudyFileError, UnknownNameError, did_you_mean
from samtune.registry import DATASETS, MODELS, Registry, load_plugins
from samtune.yaml_reader import Document, parse_value, read_yaml

Count = Annotated[int, Field(gt=0, strict=True)]
KeyPath = tuple[str | int, ...]
Value = float | int | str | bool | None

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


class Named(_Config):
    """Something registered, by name, with its parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    name: str = Field(strict=True)

    @property
    def params(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class SamConfig(_Config):
    """Sharpness-Aware Minimization around the optimizer; rho = 0 is the optimizer alone."""

    rho: float = Field(0.05, ge=0)
    adaptive: bool = Field(False, strict=True)


class TrainingConfig(_Config):
    """How long and on what schedule one run trains."""

    epochs: Count
    batch_size: Count = 128
    lr_schedule: Literal["cosine", "step", "constant"] = "cosine"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**32, strict=True)


class TrialConfig(_Config):
    """One complete training run."""

    model: Named
    dataset: Named
    optimizer: Named
    sam: SamConfig = SamConfig()
    training: TrainingConfig

    @property
    def hash(self) -> str:
        """Short and stable; a training state is good only for the configuration it came from."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class _Distribution(_Config):
    when: dict[str, Value | list[Value]] | None = None

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the values drawn so far (or the base trial's) meet the condition."""
        return all(
            values.get(path) in (allowed if isinstance(allowed, list) else [allowed])
            for path, allowed in (self.when or {}).items()
        )


class _Range(_Distribution):
    @model_validator(mode="after")
    def _must_be_a_range(self) -> _Range:
        low, high = self.bounds
        if low >= high:
            raise ValueError(f"the lower end must be below the upper, got [{low}, {high}]")
        if self.log and low <= 0:
            raise ValueError(f"a log scale needs a lower end above 0, got {low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None:
            steps = (high - low) / self.step
            if not math.isclose(steps, round(steps), rel_tol=1e-9):
                raise ValueError(f"steps of {self.step} from {low} do not meet {high}")
        return self

    bounds: tuple[Any, Any]
    step: Any
    log: bool


class FloatRange(_Range):
    """A real number between two ends, both included."""

    bounds: tuple[float, float] = Field(alias="float")
    step: float | None = Field(None, gt=0)
    log: bool = Field(False, strict=True)

    @property
    def examples(self) -> list[float]:
        """Both ends, or every value where there are few."""
        low, high = self.bounds
        if self.step is None:
            return [low, high]
        return [low + i * self.step for i in range(round((high - low) / self.step) + 1)]


class IntRange(_Range):
    """An integer between two ends, both included."""

    bounds: tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]] = Field(
        alias="int"
    )
    step: Annotated[int, Field(gt=0, strict=True)] | None = None
    log: bool = Field(False, strict=True)

    @property
    def examples(self) -> list[int]:
        """Every value."""
        low, high = self.bounds
        return list(range(low, high + 1, self.step or 1))


class Choice(_Distribution):
    """One of the listed values."""

    choice: list[Value] = Field(min_length=1)

    @field_validator("choice")
    @classmethod
    def _must_differ(cls, choice: list[Value]) -> list[Value]:
        if len({repr(c) for c in choice}) < len(choice):
            raise ValueError("a value is listed twice")
        return choice

    @property
    def examples(self) -> list[Value]:
        """Every value."""
        return self.choice


Distribution = FloatRange | IntRange | Choice
DISTRIBUTIONS: dict[str, type[FloatRange] | type[IntRange] | type[Choice]] = {
    "float": FloatRange,
    "int": IntRange,
    "choice": Choice,
}


class SchedulerConfig(_Config):
    """What stops weak trials early.

    `asha` keeps the best 1/reduction_factor at grace_epochs, grace_epochs * reduction_factor, ...
    (Li et al. 2020); `median` stops what is below the median of the running averages (Golovin et
    al. 2017); `none` lets every trial run to its end.
    """

    name: Literal["asha", "median", "none"] = "asha"
    grace_epochs: Count = 1
    reduction_factor: Annotated[int, Field(ge=2, strict=True)] = 3


class ResourcesConfig(_Config):
    """What one trial occupies; fractions of a GPU share it."""

    cpus: Count = 1
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"

    @field_validator("gpus")
    @classmethod
    def _whole_beyond_one(cls, gpus: str | float) -> str | float:
        if isinstance(gpus, float) and gpus > 1 and gpus % 1:
            raise ValueError(f"must be at most 1 or a whole number, got {gpus}")
        return gpus


class SearchConfig(_Config):
    """How the search goes: the `study:` section."""

    metric: str = "val_accuracy"
    select: Literal["best", "last"] = "best"
    trials: Count = 24
    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2"] = "tpe"
    seed: int = Field(0, ge=0, lt=2**32, strict=True)
    baseline: bool = Field(True, strict=True)
    scheduler: SchedulerConfig = SchedulerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    max_failed_trials: Count = 5

    @field_validator("scheduler", mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class StudyConfig(_Config):
    """A checked study file."""

    name: str = Field(pattern=NAME_PATTERN, strict=True)
    trial: TrialConfig
    search_space: dict[str, list[Distribution]] = {}
    study: SearchConfig = SearchConfig()
    plugins: list[str] = []

    def trial_with(self, values: Mapping[str, Any]) -> TrialConfig:
        """The base trial with these values laid over it, checked as a whole again.

        Parameters of the base's model (or dataset, optimizer) go when another one is chosen.

        Raises:
            StudyFileError: the result is no valid trial.
        """
        raw = self.trial.model_dump(mode="json")
        for path, value in sorted(values.items(), key=lambda item: not item[0].endswith(".name")):
            section, _, key = path.partition(".")
            if key == "name" and raw[section]["name"] != value:
                raw[section] = {}
            raw[section][key] = value
        problems = _Problems(Document("the sampled trial", raw, {}))
        trial = _check_trial(raw, (), problems, folder=None)
        problems.raise_if_any()
        assert trial is not None
        return trial

    def value_of(self, path: str) -> Any:
        """The base trial's value at a path; None where it says nothing."""
        section, _, key = path.partition(".")
        return self.trial.model_dump(mode="json")[section].get(key)

    @property
    def task(self) -> str:
        """The kind of task of the base trial's model."""
        task = MODELS[self.trial.model.name].task
        assert task is not None
        return task

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is better when smaller or larger."""
        from samtune.tasks import study_metrics

        return study_metrics(self.task)[self.study.metric]


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
    problems = _Problems(document)
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
            problems.add((key,), _no_such_setting(str(key), StudyConfig.model_fields))
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
    return StudyConfig(
        name=raw["name"], trial=trial, search_space=space, study=search, plugins=wanted
    )


def to_yaml(config: StudyConfig) -> str:
    """The study file that `read_study` reads back as the same configuration."""
    from io import StringIO

    from ruamel.yaml import YAML

    raw = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["trial"] = config.trial.model_dump(mode="json")
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 100
    stream = StringIO()
    yaml.dump(raw, stream)
    return stream.getvalue()


class _Header(_Config):
    name: str = Field(pattern=NAME_PATTERN, strict=True)
    plugins: list[str] = []


class _Problems:
    """Collects what is wrong, each with its path and line."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[float, str], None] = {}

    def add(self, path: KeyPath, problem: str) -> None:
        line = self._line(path)
        where = ".".join(str(part) for part in path if part not in ("float", "int", "choice"))
        text = f"{where}: {problem}" if where else problem
        if line == COMMAND_LINE:
            text = f"command line, {text}"
        elif line:
            text = f"line {line}, {text}"
        self._found[(line, text)] = None

    def validate(self, cls: type[BaseModel], raw: Any, path: KeyPath) -> Any:
        """The checked object, or None with the problems noted."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                location = tuple(detail["loc"])
                self.add((*path, *location), _in_words(detail, cls))
            return None

    def raise_if_any(self) -> None:
        if self._found:
            raise StudyFileError(self._document.source, [text for _, text in sorted(self._found)])

    def __len__(self) -> int:
        return len(self._found)

    def _line(self, path: KeyPath) -> int:
        for end in range(len(path), 0, -1):
            if path[:end] in self._document.lines:
                return self._document.lines[path[:end]]
        return 0


COMMAND_LINE = -1


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
    raw: Any, path: KeyPath, problems: _Problems, folder: Path | None
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
    model = MODELS[resolved["model"]["name"]]
    dataset = DATASETS[resolved["dataset"]["name"]]
    if dataset.task and model.task != dataset.task:
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
    raw: Any, path: KeyPath, registry: Registry, problems: _Problems, folder: Path | None
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


def _check_optimizer(raw: Any, path: KeyPath, problems: _Problems) -> None:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return
    import inspect

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
            problems.add((*path, key), _no_such_setting(key, known))
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


def optimizer_class(name: str) -> Any:
    """The `torch.optim` class of this name, in any capitals.

    Raises:
        UnknownNameError: there is none, or its steps cannot be SAM's.
    """
    import torch

    # LBFGS evaluates the loss several times a step by itself; SparseAdam wants sparse gradients.
    classes = {
        key.lower(): cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and key not in ("Optimizer", "LBFGS", "SparseAdam")
    }
    if name.lower() not in classes:
        raise UnknownNameError("optimizer", name, classes)
    return classes[name.lower()]


def _check_space(
    raw: Any, whole: Mapping[str, Any], trial: TrialConfig | None, problems: _Problems
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


def _check_distribution(raw: Any, place: KeyPath, problems: _Problems) -> Distribution | None:
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
    if path in ("training.seed", "dataset.name", "dataset.root"):
        return "cannot be searched: trials would not compare."
    if _known_path(path, whole, raw_space):
        return ""
    known = _paths(whole, raw_space)
    return f"trial has no such setting.{did_you_mean(path, known)}"


def _known_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> bool:
    return path in set(_paths(whole, raw_space))


def _paths(whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> Iterator[str]:
    """Every path into `trial` that a search space may name."""
    import inspect

    for section, cls in (("sam", SamConfig), ("training", TrainingConfig)):
        yield from (f"{section}.{key}" for key in cls.model_fields)
    trial = whole.get("trial")
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        yield f"{section}.name"
        for name in _possible_names(section, trial, raw_space):
            if name in registry:
                yield from (f"{section}.{key}" for key in registry[name].schema.model_fields)
    yield "optimizer.name"
    for name in _possible_names("optimizer", trial, raw_space):
        try:
            signature = inspect.signature(optimizer_class(name))
        except UnknownNameError:
            continue
        yield from (f"optimizer.{key}" for key in signature.parameters if key != "params")


def _possible_names(section: str, trial: Any, raw_space: Mapping[str, Any]) -> list[str]:
    names = []
    if isinstance(trial, dict) and isinstance(trial.get(section), dict):
        names.append(trial[section].get("name"))
    choices = raw_space.get(f"{section}.name")
    if isinstance(choices, dict) and isinstance(choices.get("choice"), list):
        names += choices["choice"]
    return [name for name in names if isinstance(name, str)]


def _check_values(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: _Problems
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

    try:
        with torch.device("meta"):
            build_model(
                model.name, num_classes=10, in_channels=3, image_size=(32, 32), **model.params
            )
    except ValueError as error:
        return str(error)
    return ""


def _conditions_first(
    space: dict[str, list[Distribution]], problems: _Problems
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
    problems: _Problems,
) -> None:
    from samtune.tasks import study_metrics

    metrics = study_metrics(MODELS[trial.model.name].task or "classification")
    if search.metric not in metrics:
        problems.add(
            ("study", "metric"),
            f"no metric named {search.metric!r}.{did_you_mean(search.metric, metrics)} "
            f"There are: {', '.join(metrics)}.",
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
    # Here and not above: they import torch, which `samtune --help` and `samtune list` can do without.
    import samtune.data
    import samtune.models  # noqa: F401


def _in_words(detail: Any, cls: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return _no_such_setting(str(location[-1]), _fields_at(cls, location[:-1]))
    if kind == "missing":
        return "is required."
    if kind == "string_pattern_mismatch":
        return (
            f"must be 1 to 64 letters, digits, dots, dashes or underscores, got {detail['input']!r}"
        )
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[0].lower() + message[1:]
    if kind == "value_error":
        return f"{message}."
    return f"{message}, got {detail['input']!r}."


def _fields_at(cls: Any, location: KeyPath) -> list[str]:
    for part in location:
        info = cls.model_fields.get(part) if isinstance(part, str) else None
        if info is None or not isinstance(info.annotation, type):
            return []
        cls = info.annotation
    return [info.alias or name for name, info in cls.model_fields.items()]


def _no_such_setting(key: str, known: Any) -> str:
    suggestion = did_you_mean(key, [str(name) for name in known])
    return f"no such setting.{suggestion or f' There are: ' + ', '.join(known) + '.'}"
