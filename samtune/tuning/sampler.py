"""The Optuna study: what the sampler is told, and what it proposes.

Ray's own OptunaSearch tells every stopped trial as complete, with the value of the epoch it was
stopped in, and leaves diverged ones running for ever. Here a finished trial is COMPLETE, one that
was stopped, diverged or ran out of memory PRUNED with its intermediate values, a failed one FAIL;
no NaN ever arrives.

Most samplers learn from complete trials only, of which ASHA leaves few. So what learns is shown a
study of its own: in it a stopped trial is complete with what its curve is expected to reach
(`curves`), one that diverged or ran out of memory with the worst of all. `gaussian` sees every
trial at the epochs it came to.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Collection, Mapping
from heapq import nsmallest
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from samtune.analysis.scores import thinned
from samtune.config.schema import StudyConfig
from samtune.study.trial_folder import EndState, trial_number
from samtune.tuning.curves import Curve, counted, gains
from samtune.tuning.gaussian import Seen, thompson
from samtune.tuning.proposals import cma_es, sobol
from samtune.tuning.space import draw, named

TOLD_AS = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
STARTUP_TRIALS = {"tpe": 10, "cmaes": 10, "gp": 6}  # points of a Sobol sequence, before they learn
REDRAWS = 20
MOST_LEARNED = 1000  # trials that TPE learns from: a draw takes longer with each of them
GOOD = 25  # as many as Optuna's TPE takes for good ones at most; it learns from all of those


class Sampler:
    """An in-memory Optuna study that can be rebuilt from a study folder.

    What is drawn for a trial follows from the study's seed, the trial's number and what is known of
    the trials before, so a study that was resumed or extended draws what it would have drawn. They
    must be made known in the order of their numbers. No point is drawn twice while others are left.
    """

    def __init__(self, config: StudyConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.config = config
        self.study = self._new_study()
        self._running: dict[str, optuna.Trial] = {}
        self._values: list[dict[str, Any]] = []  # by Optuna's numbers
        self._tried: set[str] = set()
        self._broken: set[int] = set()  # Optuna's numbers of those that diverged, or alike
        self._shown: dict[int, _Shown] = {}  # by Optuna's numbers, of those that have ended
        self._curves: dict[int, Curve] = {}
        self._ended: set[int] = set()  # whose curve is at its end

    def ask(self, key: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """New values for a trial, by path; those given are taken as they are."""
        number = trial_number(key)
        values = self._draw(number, given=given) if given else self._new_values(number)
        self.take_up(key, values)
        return values

    def take_up(self, key: str, values: Mapping[str, Any]) -> None:
        """Makes a trial with these values a running one."""
        params, _ = named(self.config, values)
        self._note(values)
        self.study.enqueue_trial(params)
        trial = self.study.ask()
        draw(trial, self.config)
        self._running[key] = trial

    def report(self, key: str, epoch: int, value: float) -> None:
        """An intermediate value; the first one of an epoch counts."""
        trial = self._running.get(key)
        if trial is not None and math.isfinite(value):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a repeated epoch, which is ignored as it should
                trial.report(value, epoch)

    def tell(self, key: str, state: EndState, value: float | None) -> None:
        """How a trial ended, with the metric it counts by if it finished."""
        trial = self._running.pop(key, None)
        if trial is None:
            return
        told = _told_as(state, value)
        if state in ("diverged", "out_of_memory"):
            self._broken.add(trial.number)
        self.study.tell(trial, value if told is TrialState.COMPLETE else None, told)

    def add_ended(
        self,
        values: Mapping[str, Any],
        state: EndState,
        value: float | None,
        intermediate_values: dict[int, float],
    ) -> None:
        """A trial that ended in an earlier session."""
        params, distributions = named(self.config, values)
        told = _told_as(state, value)
        self._note(values)
        if state in ("diverged", "out_of_memory"):
            self._broken.add(len(self.study.get_trials(deepcopy=False)))
        self.study.add_trial(
            optuna.create_trial(
                state=told,
                value=value if told is TrialState.COMPLETE else None,
                params=params,
                distributions=distributions,
                intermediate_values=intermediate_values,
            )
        )

    def _note(self, values: Mapping[str, Any]) -> None:
        self._values.append(dict(values))
        self._tried.add(_written(values))

    def _is_new(self, values: Mapping[str, Any]) -> bool:
        return _written(values) not in self._tried

    def _new_values(self, number: int) -> dict[str, Any]:
        """Values that no trial had; where the draws find none, one of those that are left."""
        for attempt in range(REDRAWS):
            values = self._draw(number, attempt)
            if self._is_new(values):
                return values
        left = [v for v in self.config.points() if self._is_new(v)]
        random = np.random.default_rng([self.config.study.seed, number])
        return left[random.integers(len(left))] if left else values

    def _draw(
        self, number: int, attempt: int = 0, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        # Without a further word for the first attempt.
        entropy = [self.config.study.seed, number, attempt][: 3 if attempt else 2]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        name = self.config.study.sampler
        startup = STARTUP_TRIALS.get(name)
        is_first = not attempt and not given
        if is_first and (name == "qmc" or (startup and self._begun < startup)):
            return sobol(self.config, number)
        if name == "gp" and not given and (seen := self._seen()):
            return thompson(self.config, seen, seed, self._is_new)
        asked = self._learned() if startup else self._new_study()
        if name == "cmaes" and not given:
            complete = asked.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if len(complete) >= STARTUP_TRIALS[name]:
                return cma_es(self.config, complete, STARTUP_TRIALS[name], seed)
        asked.sampler = new_sampler(self.config, seed)
        if given:
            asked.enqueue_trial(named(self.config, given)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sampler's notes on how it explores
            return draw(asked.ask(), self.config)

    @property
    def _begun(self) -> int:
        known = self.study.get_trials(deepcopy=False)
        return sum(t.state is not TrialState.FAIL for t in known)

    def _known(self) -> tuple[list[FrozenTrial], dict[int, Curve], list[float]]:
        """The trials that did not fail, what each counts by, and what is gained to the end."""
        known = self.study.get_trials(deepcopy=False)
        trials = [t for t in known if t.state is not TrialState.FAIL]
        select, mode = self.config.study.select, self.config.mode
        for trial in trials:
            if trial.number not in self._ended:
                self._curves[trial.number] = counted(trial.intermediate_values, select, mode)
                if trial.state is not TrialState.RUNNING:
                    self._ended.add(trial.number)
        curves = {trial.number: self._curves[trial.number] for trial in trials}
        return trials, curves, gains(curves.values(), self.config.trial.training.epochs)

    def _seen(self) -> list[Seen]:
        """What the Gaussian process learns from: running trials, too, as far as they are."""
        trials, curves, gain = self._known()
        ends = {
            number: {epoch: value + gain[epoch - 1] for epoch, value in curve.items()}
            for number, curve in curves.items()
            if curve and number not in self._broken
        }
        if ends:
            worst = (min if self.config.mode == "max" else max)(e[max(e)] for e in ends.values())
            epochs = self.config.trial.training.epochs
            ends |= {number: {epochs: worst} for number in self._broken}
        return [
            Seen(self._values[t.number], t.params, ends[t.number])
            for t in trials
            if t.number in ends
        ]

    def _learned(self) -> optuna.Study:
        """What Optuna's samplers learn from."""
        trials, curves, gain = self._known()
        worth: dict[int, float] = {}
        for trial in trials:
            curve = curves[trial.number]
            if trial.state is TrialState.COMPLETE:
                worth[trial.number] = trial.values[0]
            elif trial.state is TrialState.PRUNED and trial.number not in self._broken and curve:
                worth[trial.number] = curve[max(curve)] + gain[max(curve) - 1]
        if worth:
            worst = (min if self.config.mode == "max" else max)(worth.values())
            worth |= dict.fromkeys(self._broken, worst)
        told = self._told(worth)
        learned = self._new_study()
        for trial in trials:
            is_running = trial.state is TrialState.RUNNING
            if is_running or trial.number in told:
                shown = self._shown.get(trial.number) or _Shown.of(trial)
                if not is_running:
                    self._shown[trial.number] = shown
                    shown.values = [worth[trial.number]]
                learned.add_trial(shown)
        return learned

    def _told(self, worth: Mapping[int, float]) -> Collection[int]:
        """The numbers of those that are learned from: the best, and an even share of the others."""
        if self.config.study.sampler != "tpe" or len(worth) <= MOST_LEARNED:
            return worth
        sign = -1 if self.config.mode == "max" else 1
        best = nsmallest(GOOD, worth, key=lambda number: sign * worth[number])
        others = sorted(worth.keys() - best)
        return {*best, *thinned(others, MOST_LEARNED - len(best))}

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(
            direction="maximize" if self.config.mode == "max" else "minimize",
            sampler=optuna.samplers.RandomSampler(),  # none that learns from what is only taken up
        )


class _Shown(FrozenTrial):
    """A trial as what learns is shown it; its settings are shared by all copies of it."""

    @classmethod
    def of(cls, trial: FrozenTrial) -> _Shown:
        """A running trial, or one that is complete."""
        is_running = trial.state is TrialState.RUNNING
        return cls(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING if is_running else TrialState.COMPLETE,
            value=None if is_running else 0.0,
            datetime_start=trial.datetime_start,
            datetime_complete=None if is_running else trial.datetime_complete,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )

    def __deepcopy__(self, memo: Any) -> _Shown:
        # Optuna copies what it is given, at each draw anew, and changes the copy's number alone.
        return copy.copy(self)


def _written(values: Mapping[str, Any]) -> str:
    """Values as a text that is the same for the same point: 0.1 + 0.2 is 0.3."""
    rounded = {p: float(f"{v:.12g}") if isinstance(v, float) else v for p, v in values.items()}
    return json.dumps(rounded, sort_keys=True)


def _told_as(state: EndState, value: float | None) -> TrialState:
    """What Optuna is told; a finished trial needs a finite value to be complete."""
    told = TOLD_AS[state]
    if told is TrialState.COMPLETE and (value is None or not math.isfinite(value)):
        return TrialState.FAIL
    return told


def new_sampler(config: StudyConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for one draw; what it learns is in the study it is asked through."""
    samplers = optuna.samplers
    conditional = any(d.when for ds in config.search_space.values() for d in ds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.study.sampler:
            case "tpe":
                return samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=STARTUP_TRIALS["tpe"],
                    multivariate=True,
                    group=conditional,  # the branches of a conditional space are modelled apart
                    constant_liar=True,  # where a trial is running another one is less welcome
                )
            case _:  # a grid is walked at random, and no point of it twice
                return samplers.RandomSampler(seed=seed)
