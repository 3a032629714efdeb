"""The trials of a confirmation: finalists of a study and their baselines, each with the same seeds.

`samtune confirm` writes this section into the study that it begins; nobody types it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from samtune.config.base import Config, Value
from samtune.registry import Count
from samtune.words import count

Settings = dict[str, Value | list[Value]]  # by path into `trial`


def confirmation_name(name: str) -> str:
    """What the confirmation of a study is called, unless the user says otherwise."""
    return f"{name}-confirm"


class Finalist(Config):
    """One trial of the search that is trained again, and the optimizer alone at its settings.

    Attributes:
        trial: its key in the search.
        values: what the sampler chose for it.
        equal_epochs: the same without SAM.
        equal_compute: the same without SAM, for as many epochs as SAM's gradients pay for; the
            same settings where a step of SAM costs one gradient.
    """

    trial: str
    values: Settings
    equal_epochs: Settings
    equal_compute: Settings

    @property
    def baselines(self) -> dict[str, Settings]:
        """The baselines by what is equal in them; one where both are the same."""
        if self.equal_epochs == self.equal_compute:
            return {"equal epochs and compute": self.equal_epochs}
        return {"equal epochs": self.equal_epochs, "equal compute": self.equal_compute}


class TunedBaseline(Config):
    """The optimizer alone at the settings that a search of its own found best.

    Attributes:
        study, trial: where it was found.
        trials: how many that search has begun.
        settings: for as many epochs as each finalist.
    """

    study: str
    trial: str
    trials: Count
    settings: Settings

    @property
    def equal(self) -> str:
        """What it has in common with a finalist."""
        return f"equal epochs when tuned by {count(self.trials, 'trial')}"


class ConfirmConfig(Config):
    """What a confirmation trains, instead of what a sampler draws.

    Attributes:
        study, study_id: the search that it confirms.
        top: how many finalists were asked for; a small study has fewer.
        seeds: of the training; the two runs of a pair share one.
        tuned: one more baseline, of every finalist.
    """

    study: str
    study_id: str
    top: Count
    seeds: list[int] = Field(min_length=1)
    finalists: list[Finalist] = Field(min_length=1)
    tuned: TunedBaseline | None = None

    def baselines(self, finalist: Finalist) -> dict[str, Settings]:
        """Every baseline of a finalist, by what is equal in them."""
        tuned = {self.tuned.equal: self.tuned.settings} if self.tuned else {}
        return {**finalist.baselines, **tuned}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Each trial's values; all of one seed together, and equal settings once."""
        runs: list[dict[str, Any]] = []
        for seed in self.seeds:
            for settings in self._settings():
                values = with_seed(settings, seed)
                if values not in runs:
                    runs.append(values)
        return runs

    def _settings(self) -> Iterator[Settings]:
        for finalist in self.finalists:
            yield from (finalist.values, *self.baselines(finalist).values())


def with_seed(settings: Settings, seed: int) -> dict[str, Any]:
    """The settings of one run."""
    return {**settings, "training.seed": seed}
