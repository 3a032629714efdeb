"""A study that a Python program gives: a mapping, or a file, with a class of its own perhaps.

What comes out has gone through the same checks as a study file, and says the same sentences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from samtune.config.overrides import refuse_searched, with_overrides
from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study, to_yaml
from samtune.config.yaml_reader import MAX_DEPTH, Document, KeyPath, parse_yaml, read_yaml
from samtune.errors import SamtuneError, StudyFileError
from samtune.registry import DATASETS, MODELS

SOURCE = "the study"
PLAIN = (str, bool, int, float, type(None))


def study_from_python(
    study: StudyConfig | Mapping[str, Any] | str | Path,
    *,
    model: Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
    plugin_folder: Path | None = None,
) -> tuple[StudyConfig, Path]:
    """The checked study, and the folder that its plugins are in.

    Modules that this program has imported, and whose models or data sets the study uses, become
    plugins of it: the workers must import them, too.

    Args:
        study: a study file's path or what would stand in one; relative paths in a mapping start
            from the working directory.
        model: a class or a function to take as `trial.model`, registered or not.

    Raises:
        StudyFileError: it lists everything that is wrong.
        ValueError: `model` cannot be registered.
    """
    document, folder = _document(study)
    folder = plugin_folder or folder
    if model is not None:
        document = _with_model(document, model)
    document = with_overrides(document, overrides)
    refuse_searched(document, overrides)
    config = check_study(document, folder)
    modules = _modules_of(config)
    if not modules:
        return config, folder
    places = {_folder_of(module) for module in modules}
    if len(places | ({folder} if config.plugins else set())) > 1:
        raise SamtuneError(
            f"{SOURCE} uses {', '.join(modules)}, which the workers must import, too: put "
            f"{'it' if len(modules) == 1 else 'them'} into {folder}, and name under plugins"
        )
    plugins = [*config.plugins, *modules]
    return config.model_copy(update={"plugins": plugins}), places.pop()


def _document(study: StudyConfig | Mapping[str, Any] | str | Path) -> tuple[Document, Path]:
    if isinstance(study, StudyConfig):
        return replace(parse_yaml(to_yaml(study), SOURCE), lines={}), Path.cwd()
    if isinstance(study, Mapping):
        return Document(SOURCE, _plain(study, ()), {}), Path.cwd()
    return read_yaml(Path(study)), Path(study).absolute().parent


def _plain(value: Any, path: KeyPath) -> Any:
    """The same as a study file would have it: paths are texts, numpy's numbers are numbers."""
    if len(path) > MAX_DEPTH:
        raise StudyFileError(SOURCE, [f"nested deeper than {MAX_DEPTH}; write it flatter"])
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    where = ".".join(str(part) for part in path)
    problem = f"{where}: must be what a study file can say, got {type(value).__name__}."
    raise StudyFileError(SOURCE, [problem])


def _with_model(document: Document, model: Callable[..., Any]) -> Document:
    raw = document.value
    trial = raw.get("trial") if isinstance(raw, dict) else None
    if not isinstance(trial, dict) or not isinstance(trial.get("model", {}), dict):
        return document  # which the checks will speak of
    settings = trial.get("model", {})
    if "name" in settings:
        raise SamtuneError(
            f"trial.model.name is {settings['name']!r}, and model= is {model!r}: give one of them"
        )
    name = MODELS.name_of(model) or MODELS.give(model, "classification").name
    whole = {**raw, "trial": {**trial, "model": {"name": name, **settings}}}
    return replace(document, value=whole)


def _modules_of(config: StudyConfig) -> list[str]:
    """Modules that register what the study uses, and that it does not name under `plugins`."""
    used = [(MODELS, name) for name in config.model_names]
    used.append((DATASETS, config.trial.dataset.name))
    modules = dict.fromkeys(
        registry[name].factory.__module__
        for registry, name in used
        if "@" not in name and "/" not in name
    )
    known = ("samtune", *config.plugins)
    return [m for m in modules if not any(m == k or m.startswith(f"{k}.") for k in known)]


def _folder_of(module: str) -> Path:
    """Where a program that imports the module has to look for its package."""
    top = sys.modules[module.partition(".")[0]]
    files = [top.__file__] if top.__file__ else list(top.__path__)
    path = Path(files[0] or "").absolute()
    return path.parent.parent if hasattr(top, "__path__") and top.__file__ else path.parent
