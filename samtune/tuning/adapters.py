"""What Ray Tune asks of a searcher, a scheduler and a callback, answered by `Search`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.schedulers import TrialScheduler as RayScheduler
from ray.tune.search import Searcher

from samtune.study.trial_folder import Outcome
from samtune.tuning.patience import StorageWaitError
from samtune.tuning.search import Search
from samtune.tuning.watchdog import hung

T = TypeVar("T")


class Guard:
    """Keeps exceptions of ours out of Ray's loop, which would end the study without a word.

    The first one is kept, the session is asked to end, and `run` raises it.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._stop = stop

    def __call__(self, otherwise: T) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """A decorator that answers `otherwise` once something went wrong."""

        def decorate(method: Callable[..., T]) -> Callable[..., T]:
            @functools.wraps(method)
            def guarded(*args: Any, **kwargs: Any) -> T:
                try:
                    return method(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - whatever it is, it must wait for `run`
                    self.error = self.error or error
                    self._stop()
                    return otherwise

            return guarded

        return decorate


class _Adapter:
    """Ray pickles and copies what it is given; these belong to the driver's process alone."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TuneSearcher(_Adapter, Searcher):
    """Hands `Search.next_trial` to Ray Tune."""

    def __init__(self, search: Search, common: dict[str, Any], guard: Guard) -> None:
        super().__init__()
        self._common = common
        self._next = guard(cast("Any", Searcher.FINISHED))(functools.partial(self._ask, search))

    def suggest(self, trial_id: str) -> Any:
        """The next trial's key, with what every worker needs; None to be asked again later."""
        return self._next()

    def _ask(self, search: Search) -> Any:
        try:
            key = search.next_trial()
        except StorageWaitError:
            return None
        return Searcher.FINISHED if key is None else {"key": key, **self._common}

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
        """`TuneScheduler` hears of it first."""

    def save_to_dir(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to save: the study folder has it all."""

    def restore_from_dir(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to restore."""


class TuneScheduler(_Adapter, FIFOScheduler):
    """Hands results and endings to `Search`."""

    def __init__(self, search: Search, guard: Guard) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search = search
        self._result = guard(True)(self._take_result)
        self._end = guard(None)(self._take_end)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        goes_on = self._result(trial.config["key"], result)
        return str(RayScheduler.CONTINUE if goes_on else RayScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial's last result, or its stopping."""
        self._end(trial.config["key"], result)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """Ray says this of trials it will retry as well: `TuneCallback` knows which is which."""

    def _take_result(self, key: str, result: dict[str, Any]) -> bool:
        if result.get("fault"):
            return self._search.on_fault(key, result["fault"], gives_up=False)
        metrics = {
            name.removeprefix("metrics/"): value
            for name, value in result.items()
            if name.startswith("metrics/")
        }
        return self._search.on_epoch(
            key, result["epoch"], metrics, result["duration_s"], result["replayed"]
        )

    def _take_end(self, key: str, result: dict[str, Any]) -> None:
        if result.get("fault"):
            self._search.on_fault(key, result["fault"], gives_up=True)
        elif result.get("outcome/state"):
            reason = result["outcome/reason"]
            outcome = Outcome(result["outcome/state"], result["epoch"], reason)
            self._search.end(key, outcome, write=False)


class NoReporter(_Adapter, tune.ProgressReporter):
    """Says nothing, where Tune's own for notebooks would clear what ours shows."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never: listeners do."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: dict[str, Any]) -> None:
        """Nothing."""


class TuneCallback(_Adapter, tune.Callback):
    """Hears of lost workers."""

    def __init__(self, search: Search, guard: Guard) -> None:
        self._folder = search.folder
        self._retry = guard(None)(search.listener.on_retry)
        self._lost = guard(None)(search.worker_lost_for_good)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray gives the trial to another worker."""
        self._retry(trial.config["key"], self._reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial whose workers died too often."""
        self._lost(trial.config["key"], self._reason(trial))

    def _reason(self, trial: Any) -> str:
        return hung(self._folder.trial(trial.config["key"]).log) or _in_a_line(trial)


def _in_a_line(trial: Any) -> str:
    """Why Ray lost a worker, in one line of its own long story."""
    try:
        lines = Path(trial.error_file).read_text().splitlines()
    except OSError:
        return "Ray gave no reason"
    told = [line.strip() for line in lines if line.strip()]
    details = [line for line in told if "exit detail" in line or "Error" in line]
    return (details or told or ["Ray gave no reason"])[-1][:300]
