"""A trial in a bucket: the store fails, a worker is killed or held up, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from samtune import s3 as client
from samtune import working_copy
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import DataSplits
from samtune.errors import FencedError, SamtuneError
from samtune.study import Study, StudyFolder, open_study, study_names
from samtune.study.doctor import examine
from samtune.study.journal import Journal
from samtune.study.removal import delete, to_delete
from samtune.study.renaming import rename
from samtune.study.requests import WHOLE_STUDY, ask_to_stop, remove_requests, requested
from samtune.study.storage import storage_path
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.study.trial_run import run_trial
from samtune.study.weights import load_trained
from tests.faults.saboteur import CPU, EPOCHS, PASSES, Saboteur, curve, run
from tests.s3_server import S3, Request, no_fault

Shape = dict[str, float]
KEY = "t0001"


@dataclass
class Place:
    """A study in a bucket of its own, with one trial that was handed out.

    Attributes:
        trial: as the machine sees it that began the study.
    """

    s3: S3
    bucket: str
    config: StudyConfig
    trial: TrialFolder
    session: int

    @property
    def storage(self) -> str:
        return f"s3://{self.bucket}/studies"

    def elsewhere(self) -> StudyFolder:
        """The study as another machine sees it."""
        working_copy.new_copies()
        return StudyFolder.open(storage_path(self.storage), "tiny")

    def trial_elsewhere(self) -> TrialFolder:
        return self.elsewhere().trial(KEY)

    def study(self) -> Study:
        folder = self.elsewhere()
        return Study(folder, folder.config())


@pytest.fixture
def begin(
    s3: S3, study_config: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Place]:
    monkeypatch.setattr(client, "TRIES", 1)
    config = study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", f"epochs: {EPOCHS}, batch_size: 1200"),
        (", label_noise: 0.4", ""),
    )

    def new() -> Place:
        s3.fault = no_fault
        bucket = s3.new_bucket()
        working_copy.new_copies()
        folder = StudyFolder.create(storage_path(f"s3://{bucket}/studies"), config)
        with folder.session() as session:
            trial = folder.trial(KEY)
            trial.hand_out(record_of(config, KEY, {}), session)
        Saboteur.at_pass = Saboteur.passes = 0
        s3.requests.clear()
        return Place(s3, bucket, config, trial, session)

    return new


@pytest.fixture
def undisturbed(begin: Callable[[], Place], digits: DataSplits, tmp_path: Path) -> list[Shape]:
    record = begin().trial.record()
    assert record is not None
    other = TrialFolder(tmp_path / "undisturbed")
    other.hand_out(record, 1)
    return curve(run(other, digits))


def _requests(begin: Callable[[], Place], digits: DataSplits) -> list[Request]:
    """What an undisturbed trial asks of its store."""
    place = begin()
    there = place.trial_elsewhere()
    place.s3.requests.clear()
    run(there, digits, place.session)
    return list(place.s3.requests)


def _check_whole(place: Place, undisturbed: list[Shape]) -> None:
    study = place.study()
    assert study.damage == []
    trial = study.trial(KEY)
    assert [e.metrics for e in trial.epochs] == undisturbed
    assert trial.state == "finished"
    assert all(d.is_harmless for d in examine(storage_path(place.storage), "tiny"))
    kept, best = load_trained(trial), trial.best_epoch
    assert best is not None
    assert (kept.epoch, kept.metrics) == (best.epoch, best.metrics)


def test_a_trial_in_a_bucket_is_the_trial_it_would_be_in_a_folder(
    begin: Callable[[], Place], digits: DataSplits, undisturbed: list[Shape]
) -> None:
    place = begin()
    assert curve(run(place.trial, digits, place.session)) == undisturbed
    _check_whole(place, undisturbed)
    assert [e.epoch for e in Journal(place.trial.journal).lines()] == list(range(1, EPOCHS + 1))
    keys = {key.removeprefix("studies/tiny/") for key in place.s3.keys(place.bucket)}
    names = {key for key in keys if not key.startswith("data/")}
    assert len(keys - names) == 1
    assert {name.partition("-")[0] for name in names} == {
        *("lock", "manifest.json", "settings.json", "study.yaml"),
        *(f"trials/{KEY}/{name}" for name in ("trial.json", "epochs.jsonl", "outcome.json")),
        *(f"trials/{KEY}/{name}" for name in ("state", "best")),
    }
    assert sum("/state-" in name for name in names) == 2
    assert sum("/best-" in name for name in names) == 1


def test_an_epochs_files_are_there_before_its_line_and_that_before_it_is_told(
    begin: Callable[[], Place], digits: DataSplits
) -> None:
    place = begin()
    progress = run_trial(place.trial, place.session, device=CPU, data=digits)
    next(progress)
    place.s3.requests.clear()
    next(progress)
    asked = [(request.kind, Path(request.key).name.split("-")[0]) for request in place.s3.requests]
    assert asked == [
        *[("get", "manifest.json"), ("put", "state"), ("put", "best"), ("put", "epochs.jsonl")],
        ("delete", "best"),
    ]


def _follow(trial: TrialFolder, session: int, data: DataSplits) -> list[Shape]:
    """What a trial tells until its store fails for good."""
    told = []
    try:
        for progress in run_trial(trial, session, device=CPU, data=data):
            told.append(progress.metrics)
    except OSError:
        return told
    raise AssertionError("nothing has failed")


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("denied", 19),
        ("lost", 20),
        *(pytest.param(f, 1, marks=pytest.mark.slow) for f in ("denied", "lost", "cut", "busy")),
    ],
)
def test_a_worker_whose_last_request_was_any_of_its_requests_loses_nothing(
    begin: Callable[[], Place],
    digits: DataSplits,
    undisturbed: list[Shape],
    fault: str,
    step: int,
) -> None:
    """A request that was denied was not carried out; one whose reply was lost was."""
    for at in range(0, len(_requests(begin, digits)), step):
        place = begin()
        there = place.trial_elsewhere()

        def fails(_: Request, place: Place = place, at: int = at) -> str:
            count = len(place.s3.requests)
            return "" if count <= at else fault if count == at + 1 else "denied"

        place.s3.requests.clear()
        place.s3.fault = fails
        told = _follow(there, place.session, digits)
        asked = place.s3.requests[at]
        place.s3.fault = no_fault
        journaled = [e.metrics for e in place.study().trial(KEY).epochs]
        assert journaled == undisturbed[: len(journaled)], asked
        assert told == journaled[: len(told)], asked
        passes = Saboteur.passes
        assert curve(run(place.trial_elsewhere(), digits, place.session)) == undisturbed, asked
        again = (Saboteur.passes - passes) // PASSES - (EPOCHS - len(journaled))
        assert again == 0, asked  # what is in the journal is not trained again
        _check_whole(place, undisturbed)


@pytest.mark.parametrize("is_resumed", [True, False], ids=["by a session", "by an attempt"])
@pytest.mark.parametrize("step", [21, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_held_up_at_any_request_changes_nothing_any_more(
    begin: Callable[[], Place],
    digits: DataSplits,
    undisturbed: list[Shape],
    is_resumed: bool,
    step: int,
) -> None:
    """Another machine takes the trial over, and ends it, while the request is on its way."""
    for at in range(0, len(_requests(begin, digits)), step):
        place = begin()
        there, held_up = place.trial_elsewhere(), []
        before: dict[str, object] = {}

        def take_over(
            request: Request,
            place: Place = place,
            at: int = at,
            held_up: list[Request] = held_up,
            before: dict[str, object] = before,
        ) -> str:
            if len(place.s3.requests) == at + 1 and not held_up:
                held_up.append(request)
                folder = place.elsewhere()
                session = place.session
                if is_resumed:
                    folder.fetch()
                    with folder.session() as session:
                        folder.trial(KEY).hand_out(record_of(place.config, KEY, {}), session)
                assert curve(run(folder.trial(KEY), digits, session)) == undisturbed
                before.update(_read_files(place))
            return ""

        place.s3.requests.clear()
        place.s3.fault = take_over
        with suppress(FencedError, OSError):
            run(there, digits, place.session)
        place.s3.fault = no_fault
        assert held_up, at
        assert _read_files(place) == before, held_up
        _check_whole(place, undisturbed)


def _read_files(place: Place) -> dict[str, object]:
    """What anybody reads of the trial: its epochs, its end, and the files that they name."""
    trial = place.study().trial(KEY)
    assert trial.outcome == Outcome("finished", EPOCHS)
    best = trial.best_epoch
    assert best is not None
    named = [*(entry.state for entry in trial.epochs[-2:]), best.weights]
    files = {name: trial.folder.file(name).read_bytes() for name in ("outcome.json", *named)}
    return {"epochs": trial.epochs, **files}


def test_a_listing_that_lacks_the_newest_names_hides_no_trial_and_no_ending(
    begin: Callable[[], Place], digits: DataSplits
) -> None:
    place = begin()
    run(place.trial, digits, place.session)
    folder = place.elsewhere()
    for key in ("t0002", "t0003"):
        folder.trial(key).hand_out(record_of(place.config, key, {}), place.session)
    newest = [k for k in place.s3.keys(place.bucket) if "t0002" in k or "t0003" in k]
    newest += [f"studies/tiny/trials/{KEY}/{name}" for name in ("outcome.json", "epochs.jsonl")]
    place.s3.hidden = set(newest)
    study = place.study()
    assert [(t.key, t.state, len(t.epochs)) for t in study.trials] == [
        (KEY, "finished", EPOCHS),
        ("t0002", "interrupted", 0),
        ("t0003", "interrupted", 0),
    ]
    assert study.folder.next_number() == 4


def test_a_study_that_was_not_begun_leaves_its_name_free_and_is_then_found_by_it(
    s3: S3, study_config: Callable[..., StudyConfig]
) -> None:
    storage = f"s3://{s3.new_bucket()}"
    assert study_names(storage_path(storage)) == []
    folder = StudyFolder.create(storage_path(storage), study_config())
    working_copy.new_copies()
    assert study_names(storage_path(storage)) == ["tiny"]
    assert open_study("tiny", storage).state == "interrupted"
    folder.remove_if_untouched()
    assert study_names(storage_path(storage)) == []
    assert s3.keys(storage.removeprefix("s3://")) == []


def test_a_driver_hears_of_a_request_from_another_machine_and_a_deleted_study_leaves_nothing(
    begin: Callable[[], Place],
) -> None:
    place = begin()
    here = place.elsewhere()
    with here.session() as session:
        ask_to_stop(place.study())
        assert requested(here, session) == {WHOLE_STUDY}
        remove_requests(here)
        assert requested(here, session) == set()
    working_copy.new_copies()
    assert delete(to_delete(storage_path(place.storage), "tiny")) > 1000
    assert place.s3.keys(place.bucket) == []


def test_a_study_in_a_bucket_keeps_its_name(begin: Callable[[], Place]) -> None:
    with pytest.raises(SamtuneError, match="nothing can be renamed in one step"):
        rename(begin().elsewhere(), "other")


def test_nothing_of_the_credentials_is_written_down(
    begin: Callable[[], Place], digits: DataSplits
) -> None:
    place = begin()
    run(place.trial, digits, place.session)
    for key in place.s3.keys(place.bucket):
        body = place.s3.client().get_object(Bucket=place.bucket, Key=key)["Body"].read()
        assert b"secret-of-tests" not in body
        assert b"127.0.0.1" not in body
