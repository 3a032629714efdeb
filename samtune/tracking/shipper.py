"""Brings MLflow to where the journals are."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from filelock import Timeout

from samtune.errors import SamtuneError
from samtune.secrets import without_password
from samtune.study.folder import StudyFolder
from samtune.study.lease import lock_of
from samtune.study.manifest import REPORT_FILE
from samtune.study.study import Study, Trial
from samtune.tracking.champion import register, rename_model
from samtune.tracking.faults import is_refusal, is_unanswered, is_unreachable, words
from samtune.tracking.housekeeping import follow_name
from samtune.tracking.reading import Stamp, StudyReader
from samtune.tracking.records import Report, Shipped, ShippedRun, report
from samtune.tracking.redaction import masked
from samtune.tracking.runs import PARENT, Runs, open_experiment
from samtune.tracking.store import Store, remember, store_of, use_client_environment
from samtune.tracking.writer import Writer

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNANSWERED_IN_A_ROW = 3
FRUITLESS_ROUNDS = 5
NOT_REGISTERED = "the best trial's model is not registered"


def sync(folder: StudyFolder) -> tuple[int, Report]:
    """Ships everything MLflow has not taken yet, to where the study is recorded.

    Returns:
        The number of epochs that went, and what there is to say of the rest.

    Raises:
        SamtuneError: MLflow cannot be reached, or refuses epochs; nothing is lost by it.
    """
    use_client_environment()
    store = store_of(folder.root)
    try:
        with lock_of(folder.root / "tracking.lock", timeout=0):
            try:
                sent = _sync(folder, store)
            except SamtuneError:
                raise
            except Exception as error:  # whatever MLflow's client raises before the first request
                reason = masked(words(error), [store.uri])
                raise SamtuneError(f"MLflow at {store.address}: {reason}") from error
    except Timeout:
        raise SamtuneError("another process is shipping this study; try again later") from None
    found = report(folder.root, store.address)
    if found.refused:
        raise SamtuneError(
            f"{sent} epochs sent; MLflow at {store.address} refuses {found.refusals}"
        )
    return sent, found


def _sync(folder: StudyFolder, store: Store) -> int:
    shipper = Shipper(folder, store.uri)
    sent, fruitless = 0, 0
    while True:
        result = shipper.ship(whole=True)
        sent += result.sent
        if not result.failure:
            break
        fruitless = 0 if result.progress else fruitless + 1
        if fruitless == FRUITLESS_ROUNDS or result.unreachable:
            raise SamtuneError(f"MLflow at {store.address}: {result.failure}")
        time.sleep(fruitless)
    if not folder.is_running:
        shipper.register_champion()
    return sent


class ReplacedError(SamtuneError):
    """The study's folder is gone, or another study's now."""


@dataclass
class Round:
    """What came of one pass over a study.

    Attributes:
        sent: how many epochs went.
        failure: why something is still to be sent; empty if nothing is.
        progress: whether MLflow took something, so that another try is worth while at once.
        unreachable: whether nobody listens where MLflow should be.
    """

    sent: int = 0
    failure: str = ""
    progress: bool = False
    unreachable: bool = False


class Shipper:
    """Brings MLflow to where the journals are.

    Each trial goes by itself: what MLflow does not take of one keeps nothing of the others back.
    After anything went wrong the next round first looks what MLflow really has.

    Args:
        uri: MLflow's address; it may hold a password.
        log: takes what only those who look for a fault want to read.
    """

    def __init__(
        self, folder: StudyFolder, uri: str, log: Callable[[str], None] = lambda _: None
    ) -> None:
        from mlflow import MlflowClient

        use_client_environment()
        self.folder = folder
        self.uri = uri
        self.registry_uri = os.environ.get("MLFLOW_REGISTRY_URI") or uri
        self.log = log
        self.client: MlflowClient = MlflowClient(uri, self.registry_uri)
        self.study_id = folder.manifest.study_id
        self.shipped = Shipped.read(folder.root)
        shown = without_password(uri)
        if self.shipped.uri != shown:  # another server knows nothing of what the first one has
            self.shipped = Shipped(shown)
        self.shipped.try_refused_again()
        self._reader = StudyReader(folder)
        self._up_to_date_with: Stamp = frozenset()
        self._writer: Writer | None = None
        self._aside: dict[str, tuple[str, int]] = {}

    def ship(self, *, until: float | None = None, whole: bool = False) -> Round:
        """One pass over what has changed.

        Args:
            until: the `time.monotonic` after which nothing more is begun.
            whole: look at every file, whatever was known of it.

        Raises:
            SamtuneError: the study cannot be read.
            ReplacedError: the folder no longer holds this study.
        """
        self._check_folder()
        stamp = self._reader.stamp()
        if stamp <= self._up_to_date_with and not whole:
            return Round()
        study = self._reader.read(whole=whole)
        result = Round()
        try:
            self._ship(study, result, until)
        except Exception as error:  # noqa: BLE001 - whatever MLflow does, the study goes on
            self._failed(result, error)
        if result.failure:
            self._writer = None
        self._up_to_date_with = frozenset() if result.failure else stamp
        if self.shipped.parent.run_id:  # one that has never answered leaves no trace
            self.shipped.write(self.folder.root)
            remember(self.folder.root, self.shipped.uri)
        return result

    def register_champion(self, load_code: Callable[[], None] = lambda: None) -> None:
        """Registers the best trial's model under the study's name, as `champion`, if it is to be.

        What stands in its way is noted once and keeps nothing else back.

        Args:
            load_code: is called first; it may import the code that holds the model.
        """
        self._check_folder()
        study = self._reader.read()
        if study.config.confirm or not study.config.study.register_model:
            return  # of a confirmation one lucky seed of many would be the champion
        best = study.best
        if best is None or best.selected_epoch is None or best.key not in self.shipped.trials:
            return
        champion: dict[str, Any] = {
            "trial": best.key,
            "epoch": best.selected_epoch.epoch,
            "model": self.folder.name,
        }
        if self.shipped.champion == champion:
            return
        before = (self.shipped.champion or champion).get("model", self.folder.name)
        run_id = self.shipped.trials[best.key].run_id
        try:
            load_code()
            rename_model(self.client, before, self.folder.name)
            register(self.client, self.uri, self.registry_uri, best, run_id, self.folder.name)
        except Exception as error:  # noqa: BLE001 - the user's model can raise anything
            self.shipped.problems[NOT_REGISTERED] = self._words(error)
            self.log(traceback.format_exc())
        else:
            self.shipped.champion = champion
        self.shipped.write(self.folder.root)

    def note_lost_page(self) -> None:
        """Says at the session's end that its page could not be made."""
        again = self.folder.command("report")
        self.shipped.problems[REPORT_FILE] = f"could not be made; `{again}` tries again"
        self.shipped.write(self.folder.root)

    def _check_folder(self) -> None:
        try:
            there = self.folder.manifest.study_id == self.study_id
        except SamtuneError:
            there = False
        if not there:
            raise ReplacedError(f"{self.folder.root} no longer holds study {self.study_id}")

    def _ship(self, study: Study, result: Round, until: float | None) -> None:
        writer = self._writer = self._writer or self._look()
        parent = writer.parent(study)
        in_a_row = 0
        for trial in study.trials:
            if not self._is_due(trial):
                continue
            if until is not None and time.monotonic() > until:
                result.failure = result.failure or "there was no time for all of it"
                return
            record = self.shipped.trials.setdefault(trial.key, ShippedRun())
            fate = self._attempt(
                result, record.refused, "", partial(writer.trial, study, trial, parent)
            )
            if fate == "refused":
                self._aside[trial.key] = _progress(trial)
            result.progress = result.progress or fate == "taken"
            in_a_row = in_a_row + 1 if fate == "failed" else 0
            if in_a_row == UNANSWERED_IN_A_ROW:
                return
        if not result.failure:
            problems = self.shipped.problems
            self._attempt(result, problems, "gains over the baseline", partial(writer.gains, study))
            self._attempt(result, problems, "the study's summary", partial(writer.summary, study))
            self._attempt(result, problems, "the shared view", partial(writer.view, study))
            self._attempt(result, problems, "study.yaml", partial(writer.study_file, study))
            self._attempt(result, problems, "confirm.json", partial(writer.confirmation, study))
            self._attempt(result, problems, REPORT_FILE, partial(writer.page, study))
            writer.fresh = False

    def _look(self) -> Writer:
        """What MLflow has; what it has not, or no longer, is forgotten, and so sent again."""
        run_id = self.shipped.parent.run_id
        if note := follow_name(self.client, self.folder.name, self.study_id, run_id):
            self.shipped.add_note(note)
        experiment_id, was_deleted = open_experiment(self.client, self.folder.name)
        if was_deleted:
            self.shipped.add_note(
                f"MLflow: experiment {self.folder.name!r} had been deleted; it is restored, with "
                "all it held"
            )
        runs = Runs(self.client, experiment_id, self.study_id)
        records = {PARENT: self.shipped.parent, **self.shipped.trials}
        found = runs.survey({key: record.run_id for key, record in records.items()})
        for key, record in records.items():
            if key not in found or found[key].info.run_id != record.run_id:
                self.shipped.forget(key)
        return Writer(runs, self.shipped, found)

    def _is_due(self, trial: Trial) -> bool:
        record = self.shipped.trials.get(trial.key, ShippedRun())
        is_known = (record.state, record.epochs) == _progress(trial)
        if is_known and not record.contradicts(trial):
            return False
        return self._aside.get(trial.key) != _progress(trial)

    def _attempt(
        self, result: Round, noted: dict[str, str], name: str, write: Callable[[], int | None]
    ) -> Literal["taken", "refused", "failed"]:
        """Writes one thing; what is refused for good is noted, and is nobody else's trouble."""
        try:
            result.sent += write() or 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if is_unanswered(error) or not (self._writer and self._writer.fresh):
                self._failed(result, error)
                return "failed"
            noted[name] = self._words(error)
            self.log(traceback.format_exc())
            return "refused"
        noted.pop(name, None)
        return "taken"

    def _failed(self, result: Round, error: Exception) -> None:
        result.failure = self._words(error)
        result.unreachable = is_unreachable(error)
        # What was known to be there may have been deleted: worth another look at once.
        stale = self._writer is not None and not self._writer.fresh
        result.progress = result.progress or (stale and is_refusal(error))
        if not is_unanswered(error):
            self.log(traceback.format_exc())

    def _words(self, error: Exception) -> str:
        return masked(words(error), (self.uri, self.registry_uri))


def _progress(trial: Trial) -> tuple[str, int]:
    return trial.state, len(trial.epochs)
