"""MLflow ends up with exactly what the journals say, however often and by whom it is shipped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from torch import Tensor, nn

from samtune import tracking
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import Images, load_dataset
from samtune.data.facts import digest_of
from samtune.files import read_json
from samtune.registry import MODELS, register_model
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.single import train_single
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome
from samtune.tracking import fields, reading
from samtune.tracking.records import report
from samtune.tracking.shipper import ReplacedError, Round, Shipper
from samtune.tuning import resume_study
from tests.opened import opened
from tests.tracking.conftest import T0, append, points_of, runs_of, write_study

Make = Callable[..., StudyConfig]


def _ship(folder: StudyFolder, uri: str) -> int:
    shipper = Shipper(folder, uri)
    result = shipper.ship()
    assert not result.failure
    assert shipper.shipped.problems == {}
    return result.sent


def test_one_parent_with_a_child_per_trial(folder: StudyFolder, uri: str) -> None:
    assert _ship(folder, uri) == 4
    runs = runs_of(uri)
    assert set(runs) == {"study", "t0001", "t0002"}
    parent = runs["study"].info.run_id
    children = [runs["t0001"], runs["t0002"]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    assert [run.info.status for run in children] == ["FINISHED", "KILLED"]
    assert [r.data.tags["samtune.state"] for r in children] == ["finished", "interrupted"]
    names = {"val_accuracy", "train_loss", "time_per_epoch_s", "score"}
    assert set(runs["t0002"].data.metrics) == set(runs["t0001"].data.metrics) == names
    assert runs["t0001"].data.params["sam.rho"] == "0.1"
    assert runs["t0001"].data.params["model.depth"] == "10"


def test_points_carry_the_journals_epochs_and_times(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    points = points_of(uri, runs_of(uri)["t0001"], "val_accuracy")
    assert points == [(e, e / 10, T0 + 1000 * e) for e in (1, 2, 3)]


def test_a_run_lasts_as_long_as_its_trial(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    runs = runs_of(uri)
    info = runs["t0001"].info  # its first epoch took half a second and ended at T0 + 1000
    assert (info.start_time, info.end_time) == (T0 + 500, T0 + 3000)
    assert (runs["study"].info.start_time, runs["study"].info.end_time) == (T0 + 500, T0 + 3000)
    assert runs["study"].info.run_name == "tiny 2023-11-14 22:13"


def test_no_run_ends_before_it_starts(folder: StudyFolder, uri: str) -> None:
    without_epochs = folder.trial("t0003")
    without_epochs.hand_out(record_of(folder.config(), "t0003", {}), 1)
    _ship(folder, uri)
    without_epochs.end(Outcome("failed", 1, "ValueError: no"))
    append(without_epochs, 1)  # by a worker whose clock is years behind
    _ship(folder, uri)
    info = runs_of(uri)["t0003"].info
    assert info.end_time >= info.start_time


def test_the_score_carries_its_epoch_and_that_epochs_time(folder: StudyFolder, uri: str) -> None:
    append(folder.trial("t0002"), 2, val_accuracy=0.4)
    worse = Entry(1, 1, 3, {"val_accuracy": 0.1, "train_loss": 1.0}, 0.5, 1_800_000_000_000, "", "")
    Journal(folder.trial("t0002").journal).append(worse)
    folder.trial("t0002").end(Outcome("finished", 3))
    _ship(folder, uri)
    runs = runs_of(uri)
    best = {key: points_of(uri, run, "score") for key, run in runs.items()}
    assert best == {
        "t0001": [(3, 0.3, T0 + 3000)],
        "t0002": [(2, 0.4, T0 + 2000)],
        "study": [(0, 0.4, T0 + 2000)],
    }


def test_a_running_trial_has_the_score_that_it_has_so_far(folder: StudyFolder, uri: str) -> None:
    """Which is its first metric, where MLflow's comparison of runs opens."""
    _ship(folder, uri)
    assert points_of(uri, runs_of(uri)["t0002"], "score") == [(1, 0.1, T0 + 1000)]
    append(folder.trial("t0002"), 2)
    _ship(folder, uri)
    run = runs_of(uri)["t0002"]
    assert points_of(uri, run, "score") == [(1, 0.1, T0 + 1000), (2, 0.2, T0 + 2000)]
    assert run.data.metrics["score"] == 0.2
    assert next(iter(run.data.metrics)) == "score"


@pytest.mark.parametrize("lost", [False, True])
def test_shipping_again_doubles_nothing(folder: StudyFolder, uri: str, lost: bool) -> None:
    _ship(folder, uri)
    if lost:  # the record of what was shipped may go: runs are found by their tags
        (folder.root / "tracking.json").unlink()
    append(folder.trial("t0002"), 2)
    assert _ship(folder, uri) == (5 if lost else 1)
    runs = runs_of(uri)
    client = mlflow.MlflowClient(uri)
    for key, epochs in {"t0001": 3, "t0002": 2}.items():
        history = client.get_metric_history(runs[key].info.run_id, "val_accuracy")
        assert sorted(p.step for p in history) == list(range(1, epochs + 1))


def test_an_interrupted_trial_is_opened_again_and_finished(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    for epoch in (2, 3):
        append(folder.trial("t0002"), epoch)
    folder.trial("t0002").end(Outcome("stopped", 3))
    _ship(folder, uri)
    run = runs_of(uri)["t0002"]
    assert (run.info.status, run.data.tags["samtune.state"]) == ("FINISHED", "stopped")


def test_a_failed_trial_that_was_tried_again_keeps_no_reason(folder: StudyFolder, uri: str) -> None:
    trial = folder.trial("t0002")
    trial.end(Outcome("failed", 2, "ValueError: no"))
    _ship(folder, uri)
    assert runs_of(uri)["t0002"].data.tags["samtune.reason"] == "ValueError: no"
    trial.reopen()
    for epoch in (2, 3):
        append(trial, epoch)
    trial.end(Outcome("finished", 3))
    _ship(folder, uri)
    tags = runs_of(uri)["t0002"].data.tags
    assert (tags["samtune.state"], tags["samtune.reason"]) == ("finished", "")


def test_a_session_that_only_ends_what_was_due_tells_mlflow(
    tmp_path: Path, study_config: Make, uri: str
) -> None:
    config = study_config(("trials: 4", "trials: 2, baseline: false, register_model: false"))
    folder = write_study(StudyFolder.create(tmp_path, config), {"t0001": 3, "t0002": 0})
    worse = {"val_accuracy": 0.01}  # where t0001 had 0.1, and one in two goes on
    append(folder.trial("t0002"), 1, **worse)
    resume_study("tiny", storage=tmp_path)
    tracking.wait_until_shipped(folder.root)
    assert runs_of(uri)["t0002"].data.tags["samtune.state"] == "stopped"


def test_pending_counts_the_epochs_mlflow_has_not(folder: StudyFolder, uri: str) -> None:
    assert tracking.pending(folder.root) == 4
    _ship(folder, uri)
    assert tracking.pending(folder.root) == 0
    append(folder.trial("t0002"), 2)
    assert tracking.pending(folder.root) == 1


def test_another_server_is_told_everything(
    folder: StudyFolder, uri: str, tmp_path: Path, empty_database: Path
) -> None:
    _ship(folder, uri)
    other = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'other.db')}"
    assert _ship(folder, other) == 4
    assert set(runs_of(other)) == {"study", "t0001", "t0002"}
    assert (read_json(folder.root / "tracking.json", dict) or {})["uri"] == other


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"trials": {"t0001": []}}', b"\xff"])
def test_a_damaged_record_of_what_was_shipped_is_rebuilt(
    folder: StudyFolder, uri: str, content: bytes | None
) -> None:
    _ship(folder, uri)
    record = folder.root / "tracking.json"
    before = read_json(record, dict)
    record.unlink() if content is None else record.write_bytes(content)
    append(folder.trial("t0002"), 2)
    assert tracking.sync(folder)[0] == 5
    assert set(read_json(record, dict) or {}) == set(before or {})
    runs = runs_of(uri)
    assert [len(points_of(uri, runs[k], "val_accuracy")) for k in ("t0001", "t0002")] == [3, 2]


def test_a_deleted_run_is_made_anew_with_all_its_points(folder: StudyFolder, uri: str) -> None:
    shipper = Shipper(folder, uri)
    shipper.ship()
    client = mlflow.MlflowClient(uri)
    client.delete_run(runs_of(uri)["t0002"].info.run_id)
    append(folder.trial("t0001"), 4)
    append(folder.trial("t0002"), 2)
    while shipper.ship().failure:  # the first round finds out, the second looks again
        pass
    runs = runs_of(uri)
    assert [len(points_of(uri, runs[k], "val_accuracy")) for k in ("t0001", "t0002")] == [4, 2]
    assert runs["t0002"].data.params["sam.rho"] == "0.1"


def test_sync_makes_up_for_every_run_that_was_deleted(folder: StudyFolder, uri: str) -> None:
    tracking.sync(folder)
    client = mlflow.MlflowClient(uri)
    for run in runs_of(uri).values():
        client.delete_run(run.info.run_id)
    assert tracking.sync(folder)[0] == 4
    runs = runs_of(uri)
    assert set(runs) == {"study", "t0001", "t0002"}
    assert runs["t0001"].data.tags["mlflow.parentRunId"] == runs["study"].info.run_id


def test_a_deleted_experiment_comes_back_with_its_runs(folder: StudyFolder, uri: str) -> None:
    shipper = Shipper(folder, uri)
    shipper.ship()
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    append(folder.trial("t0002"), 2)
    while shipper.ship().failure:
        pass
    assert len(points_of(uri, runs_of(uri)["t0002"], "val_accuracy")) == 2
    assert "had been deleted; it is restored" in report(folder.root).notes[0]


def test_of_two_runs_of_one_trial_one_is_kept(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    client = mlflow.MlflowClient(uri)
    known = runs_of(uri)["t0002"]
    for _ in range(2):  # what a request that was sent again leaves behind
        client.create_run(known.info.experiment_id, tags=known.data.tags, start_time=1)
    tracking.sync(folder)
    assert runs_of(uri)["t0002"].info.run_id == known.info.run_id
    append(folder.trial("t0002"), 2)
    client.create_run(known.info.experiment_id, tags=known.data.tags, start_time=1)
    (folder.root / "tracking.json").unlink()  # nobody knows any more which one had the points
    tracking.sync(folder)
    assert len(points_of(uri, runs_of(uri)["t0002"], "val_accuracy")) == 2


def test_parameters_that_were_lost_on_the_way_are_sent_again(folder: StudyFolder, uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("tiny")
    tags = {"samtune.study_id": folder.manifest.study_id, "samtune.trial": "t0001"}
    empty = client.create_run(experiment, tags=tags)
    _ship(folder, uri)
    run = runs_of(uri)["t0001"]
    assert run.info.run_id == empty.info.run_id
    assert run.data.params["sam.rho"] == "0.1"


def test_epochs_trained_again_after_damage_replace_the_old_points(
    folder: StudyFolder, uri: str
) -> None:
    _ship(folder, uri)
    trial = folder.trial("t0001")
    begun, first, *_ = trial.journal.read_bytes().splitlines(keepends=True)
    trial.journal.write_bytes(begun + first)
    journal = Journal(trial.journal)
    by = journal.begin(2)
    for epoch in (2, 3):
        metrics = {"val_accuracy": 0.9, "train_loss": 0.5}
        when = T0 + 99_000
        journal.append(Entry(2, by.number, epoch, metrics, 0.5, when, "s", "0", worker=by.worker))
    _ship(folder, uri)
    points = points_of(uri, runs_of(uri)["t0001"], "val_accuracy")
    assert points == [(1, 0.1, T0 + 1000), (2, 0.9, T0 + 99_000), (3, 0.9, T0 + 99_000)]


def test_two_studies_of_one_name_are_told_apart(
    folder: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    _ship(folder, uri)
    assert report(folder.root).notes == []
    second = write_study(StudyFolder.create(tmp_path / "again", study_config()), {"t0001": 1})
    _ship(second, uri)
    (note,) = report(second.root).notes
    assert f"tags.`samtune.study_id` = '{second.manifest.study_id}'" in note
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    mine = f"tags.`samtune.study_id` = '{second.manifest.study_id}'"
    assert len(client.search_runs([experiment.experiment_id], mine)) == 2
    assert len(client.search_runs([experiment.experiment_id])) == 5


def test_a_folder_that_became_another_studys_is_left_alone(
    folder: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    shipper = Shipper(folder, uri)
    shipper.ship()
    folder.root.rename(tmp_path / "away")
    write_study(StudyFolder.create(tmp_path, study_config()), {"t0001": 3})
    with pytest.raises(ReplacedError):
        shipper.ship()


def test_a_model_that_cannot_be_logged_leaves_the_winner_as_it_was(
    folder: StudyFolder, uri: str
) -> None:
    for _ in range(2):  # there are no weights on disk
        _, found = tracking.sync(folder)
        assert found.missing == ""
        assert [n for n in found.notes if "not registered" in n] == found.notes
        assert "the weights of trial t0001 after epoch 3" in found.notes[0]
        info = runs_of(uri)["t0001"].info
        assert (info.status, info.end_time) == ("FINISHED", T0 + 3000)


class Shy(nn.Module):
    """A small net that can refuse to be traced."""

    refuses: bool = False

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        if Shy.refuses:
            raise RuntimeError("no tracing of this one")
        logits: Tensor = self.net(images)
        return logits


if "shy" not in MODELS:
    register_model("shy")(Shy)

SMALL = (
    ("name: wide_resnet, depth: 10, width_factor: 1", "name: shy"),
    ("epochs: 3, batch_size: 400", "epochs: 1, batch_size: 1200"),
)


def test_a_model_that_cannot_be_exported_is_tried_again_by_sync(
    uri: str, tmp_path: Path, study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study_config(*SMALL)
    for _ in train_single(config, "trained", tmp_path):
        pass
    folder = StudyFolder.open(tmp_path, "trained")
    monkeypatch.setattr(Shy, "refuses", True)
    _, found = tracking.sync(folder)
    (note,) = found.notes
    assert note.startswith("MLflow: the best trial's model is not registered: ")
    before = runs_of(uri, "trained")["t0001"].info
    assert before.status == "FINISHED"

    monkeypatch.setattr(Shy, "refuses", False)
    _, found = tracking.sync(folder)
    assert found.notes == []
    after = runs_of(uri, "trained")["t0001"].info
    assert (after.status, after.end_time) == ("FINISHED", before.end_time)
    client = mlflow.MlflowClient(uri)
    assert client.get_model_version_by_alias("trained", "champion").run_id == after.run_id

    (folder.root / "tracking.json").unlink()
    tracking.sync(folder)
    assert len(client.search_model_versions("name = 'trained'")) == 1


def test_names_and_values_that_mlflow_does_not_take_are_made_to_fit(
    folder: StudyFolder, uri: str
) -> None:
    trial = folder.trial("t0002")
    many = {f"class_{i:04d}": i / 7 for i in range(1200)}
    odd = {"loss#2": 1.0, "loss_2": 2.0, "../up": 3.0, "x" * 300: 4.0}
    append(trial, 2, **many, **odd)
    _ship(folder, uri)
    metrics = runs_of(uri)["t0002"].data.metrics
    assert {f"class_{i:04d}" for i in range(1200)} <= set(metrics)
    assert (metrics["loss_2"], metrics["loss_2_2"], metrics["x" * 250]) == (2.0, 1.0, 4.0)
    assert 3.0 in metrics.values()


def test_a_parameter_that_is_too_long_says_so() -> None:
    (param,) = fields.params({"dataset": {"folders": ["a" * 7000]}})
    assert len(param.value) == 6000
    assert param.value.endswith("... (7004 characters, whole in study.yaml)")
    (whole,) = fields.params({"dataset": {"folder": "a" * 6000}})
    assert whole.value == "a" * 6000


def test_an_idle_round_reads_no_journal_and_asks_mlflow_nothing(
    folder: StudyFolder, uri: str
) -> None:
    shipper = Shipper(folder, uri)
    assert shipper.ship().sent == 4
    with opened() as paths:
        assert shipper.ship() == Round()
    assert [p for p in paths if "trials/" in p or p.endswith("mlflow.db")] == []
    append(folder.trial("t0002"), 2)
    with opened() as paths:
        assert shipper.ship().sent == 1
    journals = {Path(p).parent.name for p in paths if p.endswith("epochs.jsonl")}
    assert journals == {"t0002"}


def test_registering_a_model_leaves_mlflows_defaults_as_they_were(
    uri: str, tmp_path: Path, study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next study of this process would look for its models in this one's registry."""
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    list(train_single(study_config(*SMALL), "trained", tmp_path))
    tracking.sync(StudyFolder.open(tmp_path, "trained"))
    client = mlflow.MlflowClient(uri)
    assert client.get_model_version_by_alias("trained", "champion").version == 1
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
    assert "MLFLOW_REGISTRY_URI" not in os.environ


def test_a_study_can_do_without_a_registered_model(
    uri: str, tmp_path: Path, study_config: Make
) -> None:
    config = study_config(*SMALL, ("study: {", "study: {register_model: false, "))
    list(train_single(config, "trained", tmp_path))
    tracking.sync(StudyFolder.open(tmp_path, "trained"))
    assert runs_of(uri, "trained")["t0001"].info.status == "FINISHED"
    assert mlflow.MlflowClient(uri).search_registered_models() == []


def test_runs_are_named_by_what_varied_and_say_what_they_gain(
    tmp_path: Path, study_config: Make, uri: str
) -> None:
    folder = StudyFolder.create(tmp_path, study_config(("trials: 4", "trials: 1")))
    varied = {"sam.rho": 0.123456, "optimizer.lr": 0.1}
    for key, values, score in (("t0000", {"sam.rho": 0.0}, 0.5), ("t0001", varied, 0.75)):
        trial = folder.trial(key)
        trial.hand_out(record_of(folder.config(), key, values), 1)
        append(trial, 1, val_accuracy=score)
        if key == "t0001":
            trial.end(Outcome("stopped", 1))
    _ship(folder, uri)
    runs = runs_of(uri)
    assert runs["t0000"].info.run_name == "t0000 baseline"
    assert runs["t0001"].info.run_name == "t0001 rho=0.123 lr=0.1"
    assert runs["t0001"].data.metrics["score"] == 0.75
    assert "gain_over_baseline" not in runs["t0001"].data.metrics  # the baseline goes on
    folder.trial("t0000").end(Outcome("finished", 1))
    _ship(folder, uri)
    runs = runs_of(uri)
    assert runs["t0001"].data.metrics["gain_over_baseline"] == 0.25
    assert "gain_over_baseline" not in runs["t0000"].data.metrics
    said = runs["study"].data.metrics
    assert (said["score"], said["baseline_score"], said["gain_over_baseline"]) == (0.75, 0.5, 0.25)


def test_the_studys_run_says_its_answer_once_it_rests(folder: StudyFolder, uri: str) -> None:
    with folder.session():
        _ship(folder, uri)
        assert "mlflow.note.content" not in runs_of(uri)["study"].data.tags
    _ship(folder, uri)
    said = runs_of(uri)["study"].data.tags["mlflow.note.content"]
    assert said.startswith("**t0001** has the best score, 0.3000 (val_accuracy at its best epoch)")
    assert "| t0001 | 0.3000 | 3 | rho=0.1 |" in said
    assert f"    samtune resume tiny --storage {folder.root.parent}" in said
    assert f"viewStateShareKey={folder.study_id}" in said
    assert "get-artifact" not in said  # one rho makes no plot
    versions = runs_of(uri)["study"].data.tags["samtune.versions"]
    assert f"torch {version('torch')}" in versions


def test_the_champion_is_right_on_images_as_people_have_them(
    uri: str, tmp_path: Path, study_config: Make
) -> None:
    config = study_config(("epochs: 3, batch_size: 400", "epochs: 4, batch_size: 100"))
    list(train_single(config, "trained", tmp_path))
    folder = StudyFolder.open(tmp_path, "trained")
    tracking.sync(folder)
    val = load_dataset("digits").val
    assert isinstance(val, Images)
    images = (val.images.permute(0, 3, 1, 2) / 255).numpy()
    champion = mlflow.pyfunc.load_model("models:/trained@champion")
    right = (champion.predict(images).argmax(1) == val.targets.numpy()).mean()
    recorded = Study(folder, folder.config()).trials[0].value
    assert recorded is not None
    assert recorded > 0.6  # which normalised images alone can give
    assert right == pytest.approx(recorded, abs=0.02)  # recorded in bf16, perhaps
    about = json.loads(champion.metadata.metadata["samtune"])
    assert (about["study"], about["trial"]) == ("trained", "t0001")
    assert about["classes"] == list("0123456789")
    assert about["input"]["takes"].startswith("float32 (B, channels, height, width), pixels from 0")

    client = mlflow.MlflowClient(uri)
    registered = client.get_model_version_by_alias("trained", "champion")
    assert f"**val_accuracy {recorded:.4f}** on the validation split" in registered.description
    assert (
        "float32 images (B, 1, 8, 8), 8x8 grey, with pixels from 0 to 1" in registered.description
    )
    assert (
        '    model = mlflow.pyfunc.load_model("models:/trained@champion")' in registered.description
    )
    assert registered.tags["samtune.val_accuracy"] == f"{recorded:.6g}"
    assert json.loads(registered.tags["samtune.classes"]) == list("0123456789")
    assert json.loads(registered.tags["samtune.mean"]) == about["input"]["mean"]
    assert champion.metadata.signature is not None
    run = runs_of(uri, "trained")["t0001"]
    seen = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    noisy = load_dataset("digits", label_noise=0.4)  # as its worker has seen it
    assert seen == {"train": digest_of(noisy.train), "validation": digest_of(noisy.val)}


def test_an_ended_trial_that_changes_all_the_same_is_seen_in_its_turn(
    folder: StudyFolder, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ENDED_AT_ONCE", 1)
    trial = folder.trial("t0003")
    trial.hand_out(record_of(folder.config(), "t0003", {}), 1)
    append(trial, 1)
    trial.end(Outcome("stopped", 1))
    shipper = Shipper(folder, uri)
    assert shipper.ship().sent == 5
    append(trial, 2)  # by a worker that was held up
    assert sorted(shipper.ship().sent for _ in range(2)) == [0, 1]
