"""How a study's settings may change once it has begun, and what is kept of each change.

`study.yaml` is a study's own copy of its file, and people edit files. What samtune last accepted of
it lies in `settings.json`, with the session and the keys of every change, and the folder in which
the study's plugins were found. A change that leaves the past trials what they were is accepted, as
of `study.resources`, for another cluster; one that would give them another meaning is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from samtune.config.checked_trial import check_trial, trial_with
from samtune.config.problems import shown
from samtune.config.schema import StudyConfig
from samtune.config.study_file import to_yaml
from samtune.config.trial import TrialRecord
from samtune.config.yaml_reader import parse_yaml
from samtune.errors import SamtuneError, StudyFileError
from samtune.files import read_json, write_json
from samtune.study.trial_folder import BASELINE_KEY

BASE_RECORD = ("study.metric", "study.mode", "study.select")  # what trials are recorded under
MOST_NAMED = 12


@dataclass(frozen=True)
class Change:
    """One setting that changed, as `key: old -> new`; None where it was or is not there."""

    session: int
    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class Settings:
    """What `settings.json` holds.

    Attributes:
        accepted: `study.yaml` as samtune last wrote it.
        plugin_folder: where the plugins were found, for people and for `--plugin`; nothing is
            imported from it unless the user names a plugin.
        parsed: the same as `accepted` in JSON, which is read a hundred times as fast.
        parsed_sha256: of both texts, so that neither is changed by hand and taken for the other.
    """

    accepted: str
    plugin_folder: str = ""
    changes: list[Change] = field(default_factory=list)
    parsed: str = ""
    parsed_sha256: str = ""


def read_settings(root: Path) -> Settings | None:
    """What was last accepted; None in a study that has no such file, or a damaged one."""
    try:
        return read_json(root / "settings.json", Settings)
    except SamtuneError:
        return None  # it is a second copy: the trials' own records are what changes are judged by


def write_settings(
    root: Path, config: StudyConfig, session: int, plugin_folder: Path | None = None
) -> None:
    """Notes that `config` was accepted in this session, and what it changed."""
    before = read_settings(root)
    known = before or Settings("")
    changes = changes_between(accepted_config(before), config, session) if before else []
    folder = str(plugin_folder.absolute()) if plugin_folder else known.plugin_folder
    accepted, parsed = to_yaml(config), config.model_dump_json(by_alias=True)
    digest = _digest(accepted, parsed)
    now = Settings(accepted, folder, [*known.changes, *changes], parsed, digest)
    if now != before:
        write_json(root / "settings.json", asdict(now))


def unchanged_config(settings: Settings | None, text: str) -> StudyConfig | None:
    """What a study file of this text says, where it is what was last accepted; None elsewhere."""
    if settings is None or settings.accepted != text:
        return None
    if settings.parsed_sha256 != _digest(text, settings.parsed):
        return None
    try:
        return StudyConfig.model_validate_json(settings.parsed)
    except ValueError:
        return None


def _digest(accepted: str, parsed: str) -> str:
    return hashlib.sha256(f"{accepted}\0{parsed}".encode()).hexdigest()


def accepted_config(settings: Settings | None) -> StudyConfig | None:
    """What was last accepted, for reading; None where that cannot be told."""
    if settings is None:
        return None
    try:
        return StudyConfig.model_validate(parse_yaml(settings.accepted, "settings.json").value)
    except (ValueError, SamtuneError):
        return None


def changes_between(old: StudyConfig | None, new: StudyConfig, session: int = 0) -> list[Change]:
    """Every setting that differs, in the order of the file."""
    if old is None:
        return []
    before, after = _flat(old), _flat(new)
    return [
        Change(session, key, before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def check_changes(
    old: StudyConfig | None, new: StudyConfig, records: Sequence[TrialRecord], root: Path
) -> None:
    """Holds changed settings against the past trials.

    Args:
        old: what was accepted before, where that is known.
        records: the trials that were handed out.

    Raises:
        SamtuneError: some would mean something else; it names the settings.
    """
    refused: dict[str, str] = {}
    for record in records:
        for key, problem in _meant_otherwise(record, old, new):
            refused.setdefault(key, f"{key}: {problem}")
    if old is not None and old.name != new.name:
        refused["name"] = f"name: {old.name} -> {new.name}; a study keeps its name"
    if not refused:
        return
    lines = [*refused.values()][:MOST_NAMED]
    if left := len(refused) - len(lines):
        lines.append(f"and {left} more")
    raise SamtuneError(
        f"study {root.name!r} has trials to which these changes would give another meaning:\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"Take them back in {root / 'study.yaml'} or on the command line, or begin another "
        f"study with them: samtune run {root / 'study.yaml'} --name NEW_NAME"
    )


def _meant_otherwise(
    record: TrialRecord, old: StudyConfig | None, new: StudyConfig
) -> list[tuple[str, str]]:
    """What would be different in a past trial: keys, each with a sentence."""
    found = []
    recorded = (record.metric, record.mode, record.select)
    wanted = (new.study.metric, new.mode, new.study.select)
    for key, was, now in zip(BASE_RECORD, recorded, wanted, strict=True):
        if was != now:
            found.append((key, f"{was} -> {now}; {record.key} counts by {was}"))
    if found:
        return found  # the mode follows from the metric
    is_baseline = record.key == BASELINE_KEY
    if new.confirm:
        if record.values not in new.confirm.runs:
            return [("confirm", f"has no run with the settings of {record.key} any more")]
        searched: Mapping[str, Any] = {}
    else:
        searched = record.values
    for path, value in searched.items():
        key = f"search_space.{path}"
        was = _shown(_flat(old).get(key)) if old else "what it was"
        if path not in new.search_space:
            if not is_baseline:
                found.append((key, f"{was} is gone; {record.key} has {shown(value)} for it"))
            continue
        active = new.active(path, record.values)
        if not is_baseline and not (active and active[1].contains(value)):
            now = _shown(_flat(new)[key])
            found.append((key, f"{was} -> {now} leaves out {record.key}'s {shown(value)}"))
    for path in new.search_space:
        drawn = path in record.values or is_baseline
        if not drawn and new.active(path, record.values):
            found.append((f"search_space.{path}", f"is new; {record.key} has no value for it"))
    if found:
        return found
    try:
        # Checked anew: a parameter that a newer samtune added has its default in both.
        was_config = check_trial(record.config.model_dump(mode="json"))
        now_config = trial_with(new, record.values)
    except StudyFileError as error:
        return [("trial", f"{record.key} would be no valid trial: {error.problems[0]}")]
    before, after = (_leaves(c.model_dump(mode="json"), "trial") for c in (was_config, now_config))
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            was, now = _shown(before.get(key)), _shown(after.get(key))
            found.append((key, f"{was} -> {now}; {record.key} was begun with {was}"))
    return found


def _flat(config: StudyConfig) -> dict[str, Any]:
    """Every setting by its path, as a study file says it; a distribution is one setting."""
    space: dict[str, Any] = {}
    for path, distributions in config.search_space.items():
        said = [
            d.model_dump(mode="json", by_alias=True, exclude_defaults=True) for d in distributions
        ]
        space[f"search_space.{path}"] = said[0] if len(said) == 1 else said
    raw = config.model_dump(mode="json", exclude={"search_space"})
    return {**_leaves(raw), **space}


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        path = f"{prefix}.{key}" if prefix else key
        flat |= _leaves(value, path) if isinstance(value, dict) else {path: value}
    return flat


def _shown(value: Any) -> str:
    """A value as one writes it into a study file."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return value if isinstance(value, str) and value else shown(value)
