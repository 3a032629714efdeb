"""What a study file may say, and hardly means."""

from __future__ import annotations

import math

from samtune.config.left_behind import left_behind
from samtune.config.schema import StudyConfig
from samtune.config.space import FloatRange

# Where the best rho of each variant is found, in papers and in the bundled studies, with room.
USUAL_RHO = {
    "sam": (0.01, 1.0),
    "fsam": (0.01, 1.0),
    "sam_on": (0.05, 15.0),
    "asam": (0.2, 10.0),
    "asam_eta": (0.1, 5.0),
    "msam": (0.2, 10.0),
}


def warnings_of(config: StudyConfig) -> list[str]:
    """What is allowed, and hardly meant."""
    return [
        *_rho_on_another_scale(config),
        *left_behind(config),
        *_stopped_by_one(config),
        *_idle_gpus(config),
    ]


def _rho_on_another_scale(config: StudyConfig) -> list[str]:
    """A sentence for each variant whose rho is searched on another variant's scale.

    That is so where the middle of the range, on the log scale, is not where this variant's best
    values are found.
    """
    if "sam.rho" not in config.search_space:
        return []
    sentences = []
    for variant in _variants(config):
        found = config.active("sam.rho", {"sam.variant": variant})
        if found is None or not isinstance(found[1], FloatRange):
            continue
        low, high = found[1].bounds
        usual_low, usual_high = USUAL_RHO[variant]
        # A range from 0 has no middle on the log scale: take a thousandth of its end as its start.
        middle = math.sqrt(max(low, high / 1000) * high)
        if not usual_low <= middle <= usual_high:
            sentences.append(
                f"sam.rho from {low:g} to {high:g} is unusual for {variant}, whose best values "
                f"are mostly between {usual_low:g} and {usual_high:g}; give each variant its own "
                "range with 'when'."
            )
    return sentences


def _stopped_by_one(config: StudyConfig) -> list[str]:
    """A sentence where trials that would be in the Pareto set may be stopped before their end."""
    first, *others = config.study.metrics or [config.study.metric]
    rungs = config.study.scheduler.rung_epochs(config.trial.training.epochs)
    if not others or not (rungs or config.study.scheduler.name == "median"):
        return []
    return [
        f"{config.study.scheduler.name} stops trials by {first} alone, those too that are better "
        f"in {', '.join(others)}: scheduler: none runs every trial to its end."
    ]


def _idle_gpus(config: StudyConfig) -> list[str]:
    """A sentence where a trial's GPUs do not all have as much of a batch to compute."""
    gpus, training, sam = config.study.resources.whole_gpus, config.trial.training, config.trial.sam
    if gpus <= 1:
        return []
    sizes = {
        "sam.micro_ascent": sam.micro_ascent,
        "training.micro_batch_size": None if sam.micro_ascent else training.micro_batch_size,
    }
    sentences = []
    for path, size in sizes.items():
        parts = math.ceil(training.batch_size / size) if size else 0
        if size and parts % gpus:
            sentences.append(
                f"a batch of {training.batch_size} has {parts} parts of {path} = {size}, which "
                f"{gpus} GPUs take as a whole: some wait for the others. A multiple of {gpus} "
                "parts keeps all of them busy."
            )
    if not any(sizes.values()) and training.batch_size < gpus:
        sentences.append(
            f"a batch of {training.batch_size} image(s) is shared by {gpus} GPUs: some have none."
        )
    return sentences


def _variants(config: StudyConfig) -> list[str]:
    """Every `sam.variant` that a trial can have."""
    searched = config.search_space.get("sam.variant")
    if not searched:
        return [config.trial.sam.variant]
    return [str(value) for distribution in searched for value in distribution.examples]
