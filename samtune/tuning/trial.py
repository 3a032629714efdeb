"""The Ray worker: a trial that takes one epoch a step.

A class rather than a function: a function trainable runs in a thread of its own, which Ray must
wait for before it can reuse the worker, and which outlives a stop. `next` on a generator has none.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from typing import Any

from ray import tune

from samtune.errors import LostRankError, LostReaderError, SamtuneError
from samtune.registry import load_plugins, take_given
from samtune.study.folder import StudyFolder
from samtune.study.storage import storage_path
from samtune.tuning.nodes import Question
from samtune.tuning.patience import Patience
from samtune.tuning.watchdog import Watchdog
from samtune.working_copy import at_hand, publish

RETRY_EVERY_S = 2.0
LOG_EVERY_S = 30.0


@dataclass(frozen=True)
class SharedData:
    """Where a data set lies in Ray's object store.

    Attributes:
        splits: the reference; bare, Ray would fetch it before the worker has loaded its plugins.
    """

    splits: Any


class TrialActor(tune.Trainable):
    """One worker process; it runs one trial after another."""

    def setup(
        self,
        config: dict[str, Any],
        shared: SharedData | None = None,
        question: Question | None = None,
        given: bytes = b"",
    ) -> None:
        """Begins, or takes up, the trial that `config` names.

        Args:
            shared: the data set of all trials; without it each trial brings its own.
            question: what the node must have, and the plugins; without it there are none.
            given: code that lies in no module (`samtune.given`).
        """
        import ray
        import torch

        torch.set_num_threads(config["cpus"])
        if question:
            _check_node(question, ray.get_runtime_context().get_node_id())
            load_plugins(question.plugins, question.plugin_folder)
        take_given(given)
        self._data = ray.get(shared.splits) if shared else None
        self._start(config)

    def step(self) -> dict[str, Any]:
        """One epoch; the last result says how the trial ended.

        Where the trial's folder cannot be read or written, the result has the `fault` instead; it
        is the last one where there is no use in trying again.
        """
        import torch

        from samtune.study.trial_log import output_to

        try:
            with output_to(at_hand(self._log)), self._watchdog.watching():
                progress = next(self._progress)
        except (torch.AcceleratorError, LostRankError, LostReaderError):
            raise  # this process is of no use any more; Ray starts another
        except Exception as error:  # noqa: BLE001 - not the trial's own, which are outcomes
            return self._fault(error)
        self._publish_log(ended=progress.outcome is not None)
        self._watchdog.note(progress.duration_s)
        if not progress.replayed:
            self._patience.is_well()
        outcome = progress.outcome
        return {
            "epoch": progress.epoch,
            "metrics": progress.metrics,
            "duration_s": progress.duration_s,
            "replayed": progress.replayed,
            "outcome": outcome and {"state": outcome.state, "reason": outcome.reason},
            "done": outcome is not None,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial for the same process: importing torch again would cost seconds."""
        self.cleanup()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Ends what the trial holds open, and gives its GPU memory to the neighbours."""
        import torch

        self._progress.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _start(self, config: dict[str, Any]) -> None:
        study = StudyFolder(storage_path(config["study"]), config["study_id"])
        self._folder = study.trial(config["key"])
        self._log = self._folder.log
        self._log_published = time.monotonic()
        self._session, self._gpus = config["session"], config["gpus"]
        self._patience = Patience(config["storage_wait"])
        self._watchdog = Watchdog(config["epoch_timeout"])
        sys.argv[0] = f"samtune {self._folder.key}"
        self._begin()

    def _begin(self) -> None:
        import torch

        from samtune.study.trial_run import run_trial

        device = torch.device("cuda" if self._gpus else "cpu")
        self._progress = run_trial(
            self._folder,
            self._session,
            device=device,
            data=self._data,
            processes=max(1, int(self._gpus)),
        )

    def _publish_log(self, *, ended: bool) -> None:
        """Puts the log beside what else of the trial lies in a bucket: not at every epoch."""
        if ended or time.monotonic() - self._log_published > LOG_EVERY_S:
            self._log_published = time.monotonic()
            with contextlib.suppress(OSError):  # a log is worth no failure
                publish(self._log)

    def _fault(self, error: Exception) -> dict[str, Any]:
        """The result of a step that could not be taken; what may pass gets another beginning."""
        reason = f"{type(error).__name__}: {error}"
        gives_up = not isinstance(error, OSError)
        if isinstance(error, OSError):
            try:
                self._patience.bear(error)
            except OSError:
                gives_up = True
        if not gives_up:
            time.sleep(RETRY_EVERY_S)
            self._progress.close()
            self._begin()  # what is journaled is replayed, and the driver has it already
        return {
            "epoch": 0,
            "metrics": {},
            "duration_s": 0.0,
            "replayed": True,
            "outcome": None,
            "fault": " ".join(reason.split())[:500],
            "done": gives_up,
        }


def _check_node(question: Question, node: str) -> None:
    """Refuses a node on which the trial waited for a place since before the node was there.

    Raises:
        SamtuneError: it lacks something. The driver finds the same, and tries another node.
    """
    problems = [] if node == question.driver else question.problems(node)
    if problems:
        raise SamtuneError("; ".join(problems))
