"""What Ray Tune asks of a searcher, a scheduler and a callback, answered by `Search`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import tune
from ray.air._internal import usage
from ray.tune.schedulers import FIFOScheduler
from ray.tune.schedulers import TrialScheduler as RayScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import placement_group

from samtune.study.trial_folder import Outcome
from samtune.tuning.cluster import Place
from samtune.tuning.lost import LostWorkers
from samtune.tuning.nodes import Nodes
from samtune.tuning.patience import StorageWaitError
from samtune.tuning.search import Search
from samtune.tuning.watchdog import hung

T = TypeVar("T")

# Ray counts callbacks by kind for statistics that are off, and imports MLflow to tell one kind.
usage.tag_callbacks = lambda callbacks: False  # noqa: ARG005 - Ray's name


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


class Placement(tune.PlacementGroupFactory):
    """Where a trial runs: on any node that is fit when Ray looks for one.

    Two of them are equal to Ray if they ask for the same, so that workers are used again.
    """

    def __init__(self, place: Place, nodes: Nodes) -> None:
        super().__init__([place.bundle])
        self._avoided = nodes.avoided

    def __deepcopy__(self, memo: Any) -> Placement:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere Ray's own: a worker places nothing, and need not import what searches."""
        return tune.PlacementGroupFactory, (self.bundles, self.strategy)

    def to_placement_group(self) -> Any:
        """Asks Ray for the place."""
        avoided = self._avoided()
        selector = [{"ray.io/node-id": f"!in({','.join(avoided)})"}] if avoided else None
        return placement_group(self.bundles, self.strategy, bundle_label_selector=selector)


class TuneSearcher(_Adapter, Searcher):
    """Hands `Search.next_trial` to Ray Tune, for as many trials as the nodes hold just now.

    A trial that only waited for its turn would have been drawn with less knowledge.
    """

    def __init__(
        self, search: Search, common: dict[str, Any], slots: Callable[[], int], guard: Guard
    ) -> None:
        super().__init__()
        self._common = common
        self._slots = slots
        self._next = guard(cast("Any", Searcher.FINISHED))(functools.partial(self._ask, search))

    def suggest(self, trial_id: str) -> Any:
        """The next trial's key, with what every worker needs; None to be asked again later."""
        return self._next()

    def _ask(self, search: Search) -> Any:
        if not search.is_ending and search.running >= self._slots():
            return None
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
    """Hands results, endings and lost workers to `Search`."""

    def __init__(
        self, search: Search, placement: Placement, lost: LostWorkers, guard: Guard
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search = search
        self._placement = placement
        self._lost = lost
        self._addresses: dict[str, str] = {}  # of the node that a trial was last heard from
        self._result = guard(True)(self._take_result)
        self._end = guard(None)(self._take_end)
        self._lose = guard(None)(self._take_loss)

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """A trial that is new, or has lost its worker and is to get another one."""
        if trial.run_metadata.error_filename is None:
            trial.update_resources(self._placement)  # what Ray pickles on the way has no nodes
        else:
            self._lose(controller, trial)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        self._addresses[trial.config["key"]] = result.get("node_ip", "")
        goes_on = self._result(trial.config["key"], result)
        return str(RayScheduler.CONTINUE if goes_on else RayScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial's last result, or its stopping."""
        self._end(trial.config["key"], result)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """`on_trial_add` hears of those that are retried, `TuneCallback` of the others."""

    def _take_loss(self, controller: Any, trial: Any) -> None:
        key, error = trial.config["key"], _told(trial)
        reason = hung(self._search.folder.trial(key).log) or _in_a_line(error)
        # Where a connection has just broken, Ray's text does not say to which node.
        self._lost.note(key, _node_of(error) or self._addresses.get(key, ""))
        if self._lost.too_often(key):
            self._search.worker_lost_for_good(key, reason)
            controller.stop_trial(trial)
        else:
            self._search.listener.on_retry(key, reason)

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

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Nothing."""


class TuneCallback(_Adapter, tune.Callback):
    """Hears of trials that Ray itself gives up."""

    def __init__(self, search: Search, guard: Guard) -> None:
        self._lost = guard(None)(search.worker_lost_for_good)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial whose worker could not even be used again."""
        self._lost(trial.config["key"], _in_a_line(_told(trial)))


def _told(trial: Any) -> str:
    """What Ray has written of a trial's latest loss; empty where there is nothing."""
    try:
        return re.split(r"^Failure # ", Path(trial.error_file).read_text(), flags=re.M)[-1]
    except OSError:
        return ""


def _in_a_line(error: str) -> str:
    """Why Ray lost a worker, in one line of its own long story."""
    told = [line.strip() for line in error.splitlines() if line.strip()]
    details = [line for line in told if "exit detail" in line or "Error" in line]
    return (details or told or ["Ray gave no reason"])[-1][:300]


def _node_of(error: str) -> str:
    """The node of the worker that a story is about; empty where Ray does not know it any more."""
    from ray._private import state

    found = re.search(r"actor_id[:=]\s*([0-9a-f]{16,})", error)
    actor = state.actors(found[1]) if found else None
    return str(actor["Address"]["NodeID"]) if actor else ""
