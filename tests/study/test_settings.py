"""A study's settings change only so that its past trials stay what they were."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.files import read_json
from samtune.study.folder import StudyFolder
from samtune.study.manifest import installed_versions, other_versions
from samtune.study.settings import Change, read_settings

Make = Callable[..., StudyConfig]
VALUES = {"sam.rho": 0.05, "optimizer.lr": 0.1}


@pytest.fixture
def begun(study_folder: StudyFolder, study_config: Make) -> StudyFolder:
    """A study with a baseline and one sampled trial."""
    config = study_config()
    for key, values in {"t0000": {"sam.rho": 0.0}, "t0001": VALUES}.items():
        study_folder.trial(key).hand_out(record_of(config, key, values), 1)
    return study_folder


def _edit(folder: StudyFolder, pattern: str, replacement: str) -> None:
    path = folder.root / "study.yaml"
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1, pattern
    path.write_text(text)


REFUSED = [
    (r"epochs: 3", "epochs: 8", "trial.training.epochs: 3 -> 8; t0000 was begun with 3"),
    (r"batch_size: 400", "batch_size: 300", "trial.training.batch_size: 400 -> 300"),
    (r"label_noise: 0.4", "label_noise: 0.2", "trial.dataset.label_noise: 0.4 -> 0.2"),
    (r"momentum: 0.9", "momentum: 0.5", "trial.optimizer.momentum: 0.9 -> 0.5"),
    (r"depth: 10", "depth: 16", "trial.model.depth: 10 -> 16"),
    (r"metric: val_accuracy", "metric: val_loss", "study.metric: val_accuracy -> val_loss"),
    (r"select: best", "select: last", "study.select: best -> last; t0000 counts by best"),
    (r"^name: tiny", "name: other", "name: tiny -> other; a study keeps its name"),
    (
        r"\[0.01, 1.0\]",
        "[0.1, 1.0]",
        "search_space.sam.rho: {float: [0.01, 1.0], log: true} -> {float: [0.1, 1.0], "
        "log: true} leaves out t0001's 0.05",
    ),
    (
        r"^  sam.rho:\n(    .*\n|  - .*\n)+",
        "",
        "search_space.sam.rho: {float: [0.01, 1.0], log: true} is gone; t0001 has 0.05 for it",
    ),
    (
        r"^search_space:\n",
        "search_space:\n  model.width_factor:\n  - choice: [1, 2]\n",
        "search_space.model.width_factor: is new; t0001 has no value for it",
    ),
]


@pytest.mark.parametrize(("old", "new", "sentence"), REFUSED, ids=[r[1][:24] for r in REFUSED])
def test_what_gives_past_trials_another_meaning_is_refused_by_name(
    begun: StudyFolder, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    if "metric" in old:  # the mode goes with it, as `check_study` fills it in
        _edit(begun, "mode: max", "mode: min")
    _edit(begun, old, new)
    with pytest.raises(SamtuneError) as error:
        begun.checked_config([], tmp_path)
    assert sentence in str(error.value)
    assert f"samtune run {begun.root / 'study.yaml'} --name NEW_NAME" in str(error.value)
    assert not isinstance(error.value, KeyError)


def test_every_refused_setting_is_named_at_once(begun: StudyFolder, tmp_path: Path) -> None:
    _edit(begun, "epochs: 3", "epochs: 8")
    _edit(begun, "depth: 10", "depth: 16")
    with pytest.raises(SamtuneError, match=r"(?s)model.depth: 10 -> 16.*epochs: 3 -> 8"):
        begun.checked_config([], tmp_path)


ACCEPTED = [
    "study.trials=40",
    "study.resources.cpus=2",
    "study.scheduler=none",
    "study.sampler=random",
    "study.baseline=false",
    "study.gradient_budget=1.0e6",
    "study.baseline=tuned",
    "study.metrics=[val_accuracy, parameters]",
    "search_space.sam.rho={float: [0.001, 2.0], log: true}",
    "search_space.sam.rho={float: [0.05, 1.0], log: true}",  # narrower, and t0001 is still in it
]


@pytest.mark.parametrize("override", ACCEPTED)
def test_what_leaves_past_trials_alone_is_accepted_and_noted_with_its_session(
    begun: StudyFolder, tmp_path: Path, override: str
) -> None:
    config = begun.checked_config([], tmp_path, [override])
    with begun.session() as session:
        begun.save_config(config, session)
    assert begun.config() == config
    settings = read_settings(begun.root)
    assert settings is not None
    assert settings.changes
    assert {change.session for change in settings.changes} == {1}
    assert {change.key.split(".")[0] for change in settings.changes} == {override.split(".")[0]}


def test_a_base_value_that_every_trial_draws_may_change_in_the_file_alone(
    begun: StudyFolder, tmp_path: Path
) -> None:
    with pytest.raises(SamtuneError, match="sam.rho=0.7' would change no trial"):
        begun.checked_config([], tmp_path, ["sam.rho=0.7"])
    _edit(begun, "rho: 0.3", "rho: 0.7")
    config = begun.checked_config([], tmp_path)
    with begun.session() as session:
        begun.save_config(config, session)
    settings = read_settings(begun.root)
    assert settings is not None
    assert settings.changes == [Change(1, "trial.sam.rho", 0.3, 0.7)]


def test_a_study_without_trials_may_become_another(
    study_folder: StudyFolder, tmp_path: Path
) -> None:
    config = study_folder.checked_config([], tmp_path, ["training.epochs=8"])
    assert config.trial.training.epochs == 8


def test_an_edit_counts_from_the_next_resume_on_and_not_for_reading(
    begun: StudyFolder, tmp_path: Path
) -> None:
    _edit(begun, "trials: 4", "trials: 9")
    assert begun.config().study.trials == 4
    config = begun.checked_config([], tmp_path)
    assert config.study.trials == 9
    begun.save_config(config, 2)
    settings = read_settings(begun.root)
    assert settings is not None
    assert [str(change) for change in settings.changes] == ["study.trials: 4 -> 9"]
    assert begun.config().study.trials == 9


@pytest.mark.parametrize("content", [None, "{", '{"accepted": 3}'])
def test_without_the_second_copy_the_trials_themselves_are_the_judges(
    begun: StudyFolder, tmp_path: Path, content: str | None
) -> None:
    path = begun.root / "settings.json"
    path.unlink() if content is None else path.write_text(content)
    _edit(begun, "epochs: 3", "epochs: 8")
    with pytest.raises(SamtuneError, match=r"trial.training.epochs: 3 -> 8"):
        begun.checked_config([], tmp_path)


def test_the_plugin_folder_is_found_from_anywhere_and_never_imported_from_unasked(
    tmp_path: Path, study_config: Make
) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    mine.mkdir()
    elsewhere.mkdir()
    (mine / "my_models.py").write_text("")
    config = study_config().model_copy(update={"plugins": ["my_models"]})
    folder = StudyFolder.create(tmp_path / "studies", config, mine)
    with contextlib.chdir(elsewhere):
        assert folder.plugin_folder(["my_models"]) == mine
        with pytest.raises(SamtuneError, match="add --plugin my_models"):
            folder.checked_config([], elsewhere)
        (elsewhere / "my_models.py").write_text("")
        assert folder.plugin_folder(["my_models"]) == elsewhere


def test_other_versions_are_said_in_one_line() -> None:
    now = installed_versions()
    assert other_versions(now) == ""
    said = other_versions({**now, "torch": "1.0"})
    assert said.startswith(f"begun with torch 1.0 (now {now['torch']}): numbers may differ")
    assert "\n" not in said


@pytest.mark.parametrize("what", ["tiny", "tiny/trials", "tiny/trials/t0001", "tiny/tracking.log"])
def test_no_link_leads_out_of_a_study(begun: StudyFolder, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    link = begun.root.parent / what
    if link.exists():
        link.rename(outside)
    else:
        outside.write_text("")
    link.symlink_to(outside)
    with (
        pytest.raises(SamtuneError, match="is a link, and a study's files all lie in its own"),
        StudyFolder.open(begun.root.parent, "tiny").session(),
    ):
        pass
    if outside.is_dir() and what != "tiny":
        assert read_json(begun.root / "manifest.json", dict)["session"] == 0  # type: ignore[index]


def test_a_damaged_trial_has_no_say_in_what_may_change(begun: StudyFolder, tmp_path: Path) -> None:
    (begun.trial("t0001").root / "trial.json").write_text("")
    changed = begun.checked_config([], tmp_path, ["study.trials=9"])
    assert changed.study.trials == 9
    with pytest.raises(SamtuneError, match="t0000 was begun with 3"):
        begun.checked_config([], tmp_path, ["training.epochs=8"])
