"""The Optuna study: what the sampler is told, and what it proposes.

Ray's own OptunaSearch tells every stopped trial as complete, with the value of the epoch it was
stopped in, and leaves diverged ones running for ever. Here a finished trial is COMPLETE, a stopped
or diverged one PRUNED with its intermediate values, a failed one FAIL; no NaN ever arrives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from samtune.config.schema import StudyConfig
from samtune.study.trial_folder import EndState, trial_number
from samtune.tuning.space import draw, named

TOLD_AS = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


class Sampler:
    """An in-memory Optuna study that can be rebuilt from a study folder.

    Each trial is drawn with random numbers of its own, from the study's seed and the trial's
    number, so a study that was resumed or extended draws what it would have drawn. (`qmc` begins
    another sequence: Optuna keeps its place in the one it was at in memory only.)
    """

    def __init__(self, config: StudyConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.config = config
        self.study = optuna.create_study(
            direction="maximize" if config.mode == "max" else "minimize",
            sampler=new_sampler(config, 0),
        )
        self._running: dict[str, optuna.Trial] = {}
        self._first: int | None = None

    def ask(self, key: str) -> dict[str, Any]:
        """New values for a trial, by path."""
        number = trial_number(key)
        self._first = number if self._first is None else self._first
        is_sequence = self.config.study.sampler == "qmc"
        self.study.sampler = new_sampler(self.config, self._first if is_sequence else number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sampler's notes on how it explores
            trial = self.study.ask()
            values = draw(trial, self.config)
        self._running[key] = trial
        return values

    def ask_beside(self, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """New values for a trial, by path, but for those given."""
        if given:
            self.study.enqueue_trial(named(self.config, given)[0])
        return self.ask(key)

    def take_up(self, key: str, values: Mapping[str, Any]) -> None:
        """Makes a trial that was drawn in an earlier session a running one again."""
        params, _ = named(self.config, values)
        self.study.enqueue_trial(params)
        self.ask(key)

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
        try:
            self.study.tell(trial, value if told is TrialState.COMPLETE else None, told)
        except RuntimeError as error:
            # The grid sampler ends a study that it has searched through; ask and tell go on.
            if "stop" not in str(error):
                raise

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
        self.study.add_trial(
            optuna.create_trial(
                state=told,
                value=value if told is TrialState.COMPLETE else None,
                params=params,
                distributions=distributions,
                intermediate_values=intermediate_values,
            )
        )


def _told_as(state: EndState, value: float | None) -> TrialState:
    """What Optuna is told; a finished trial needs a finite value to be complete."""
    told = TOLD_AS[state]
    if told is TrialState.COMPLETE and (value is None or not math.isfinite(value)):
        return TrialState.FAIL
    return told


def new_sampler(config: StudyConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that `study.sampler` names, for one trial; what it learns is in the study."""
    samplers = optuna.samplers
    seed = int(np.random.SeedSequence([config.study.seed, number]).generate_state(1)[0])
    conditional = any(d.when for ds in config.search_space.values() for d in ds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.study.sampler:
            case "tpe":
                return samplers.TPESampler(
                    seed=seed, multivariate=True, group=conditional, constant_liar=True
                )
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "grid":
                return samplers.BruteForceSampler(seed=seed)
            case "qmc":
                return samplers.QMCSampler(seed=seed, scramble=True)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed)
            case "gp":
                return samplers.GPSampler(seed=seed)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed)
