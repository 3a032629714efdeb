"""What was asked of which weights, and what came of it: `sharpness.json` in a study's folder.

The file is derived: who asks the same question again is answered from it, and where it is damaged
or gone, measuring anew is all it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import samtune
from samtune.config.trial import LARGEST_RHO, SamConfig
from samtune.errors import DamagedFileError, SamtuneError
from samtune.files import read_json
from samtune.study import Study, Trial

SCHEMA = 1
FILE = "sharpness.json"
HESSIANS = "curvlinops"  # the module that computes with them
EXTRA = "samtune[sharpness]"
SHARED_RHO, SHARED_ADAPTIVE_RHO = 0.05, 0.5  # the defaults of the SAM and the ASAM paper
ADAPTIVE = ("asam", "asam_eta")  # whose rho counts relative to the weights
SAME_BALL = ("sam", "fsam", *ADAPTIVE)  # whose rho is that of a ball in the space of all weights


@dataclass(frozen=True)
class Wanted:
    """What a user can choose; None is a default that fits the study.

    Attributes:
        trials: their keys.
        rhos: at which the loss rise is measured.
        images: how many of the training images.
        batch_size: how many of them climb together.
        grid: points of the landscape along each side; 0 leaves it out.
    """

    trials: Sequence[str] = ()
    rhos: Sequence[float] = ()
    images: int | None = None
    batch_size: int | None = None
    grid: int = 15
    seed: int = 0


@dataclass(frozen=True)
class Weights:
    """The weights a trial counts by.

    Attributes:
        digest: of the file that holds them.
    """

    trial: str
    epoch: int
    digest: str


@dataclass(frozen=True)
class Question:
    """All that the numbers depend on, save the machine.

    Attributes:
        by_default: whether the trials are the best and the baseline because nobody named others.
        images: None is as many as there are, within bounds.
        curvature: whether the Hessian is looked at.
    """

    schema: int
    samtune: str
    study_id: str
    weights: list[Weights]
    by_default: bool
    rhos: list[float]
    adaptive_rhos: list[float]
    images: int | None
    batch_size: int
    grid: int
    seed: int
    curvature: bool


@dataclass(frozen=True)
class Rise:
    """How much higher the loss is at the worst point found within rho: a mean over batches.

    Attributes:
        adaptive: whether rho counts relative to each weight's magnitude, as ASAM has it.
        one_step: where SAM's own climb leads; None where the loss there is not finite.
        several_steps: the highest of several climbs, the first of which is SAM's.
        error: the standard error of `several_steps` over the batches; None for a single batch.
    """

    rho: float
    adaptive: bool
    one_step: float | None
    several_steps: float | None
    error: float | None


@dataclass(frozen=True)
class Curvature:
    """Of the Hessian of the loss.

    Attributes:
        eigenvalues: the largest, from the top.
        trace_error: the standard error of the estimated trace.
    """

    eigenvalues: list[float]
    trace: float
    trace_error: float


@dataclass(frozen=True)
class Landscape:
    """The loss around the weights; None where it is not finite.

    Attributes:
        line: along the first direction, at `Sharpness.line_at`.
        plane: along both, at `Sharpness.plane_at`: a row for each step along the second.
    """

    line: list[float | None]
    plane: list[list[float | None]]


@dataclass(frozen=True)
class TrialSharpness:
    """One trial's numbers.

    Attributes:
        rho: what it trained with, as its variant counts it; 0 is without SAM.
        parameters: how many weights it trains.
        loss: at its weights.
        differs_in: settings by which its loss is another function than the first trial's.
        no_curvature: why there is none.
    """

    trial: str
    epoch: int
    is_baseline: bool
    rho: float
    variant: str
    parameters: int
    loss: float
    rises: list[Rise]
    curvature: Curvature | None
    no_curvature: str
    landscape: Landscape | None
    differs_in: list[str] = field(default_factory=list)

    def rise(self, rho: float, *, adaptive: bool) -> Rise | None:
        """The one within this rho."""
        alike = (r for r in self.rises if (r.rho, r.adaptive) == (rho, adaptive))
        return next(alike, None)


@dataclass(frozen=True)
class Sharpness:
    """The answer to a question.

    Attributes:
        images: of the training split, as they are.
        batch_size: how many climb together, m in m-sharpness.
        steps: climbs that the largest rise was taken from.
    """

    question: Question
    dataset: str
    task: str
    images: int
    batch_size: int
    steps: int
    line_at: list[float]
    plane_at: list[float]
    device: str
    threads: int
    versions: dict[str, str]
    trials: list[TrialSharpness]


def question_of(study: Study, wanted: Wanted) -> Question:
    """What is to be measured of which weights.

    Raises:
        SamtuneError: a trial has no weights, or nothing can be measured so.
    """
    if not all(0 < rho <= LARGEST_RHO for rho in wanted.rhos):
        raise SamtuneError(f"a loss rises within a rho above 0, at most {LARGEST_RHO:g}")
    if wanted.grid == 1:
        raise SamtuneError("a landscape has 2 points a side at least; --grid 0 leaves it out")
    trials = [study.trial(key) for key in dict.fromkeys(wanted.trials)] or _by_default(study)
    plain, adaptive = [SHARED_RHO], [SHARED_ADAPTIVE_RHO]
    for sam in (t.config.sam for t in trials):
        own = adaptive if sam.variant in ADAPTIVE else plain
        if own_rho(sam) and len(own) == 1:  # of the first that has one: all are measured there
            own.append(sam.rho)
    training = study.config.trial.training
    return Question(
        SCHEMA,
        samtune.__version__,
        study.folder.manifest.study_id,
        [weights_of(t) for t in trials],
        not wanted.trials,
        sorted(set(wanted.rhos or plain)),
        sorted(set(adaptive)),
        wanted.images,
        wanted.batch_size or training.batch_size,
        wanted.grid,
        wanted.seed,
        find_spec(HESSIANS) is not None,
    )


def own_rho(sam: SamConfig) -> float | None:
    """The rho it trained with, where that is the radius of a ball around all weights."""
    return sam.rho if sam.rho and sam.variant in SAME_BALL else None


def weights_of(trial: Trial) -> Weights:
    """The weights the trial counts by.

    Raises:
        SamtuneError: it has no finished epoch.
    """
    entry = trial.selected_epoch
    if entry is None:
        raise SamtuneError(f"trial {trial.key} has no finished epoch, hence no weights to measure")
    return Weights(trial.key, entry.epoch, entry.weights_sha256 or entry.sha256)


def read_sharpness(study: Study) -> Sharpness | None:
    """What was measured last, if the file is there and whole."""
    try:
        found = read_json(study.folder.root / FILE, Sharpness)
    except DamagedFileError:
        return None
    is_own = found and found.question.study_id == study.folder.manifest.study_id
    return found if is_own and found and found.question.schema == SCHEMA else None


def outdated(study: Study, found: Sharpness) -> list[str]:
    """A sentence for each thing that has changed since these numbers were measured."""
    said = []
    measured = {w.trial: w for w in found.question.weights}
    known = {t.key: t for t in study.trials}
    for key, weights in measured.items():
        if key not in known or not known[key].epochs:
            said.append(f"{key} is gone.")
        elif weights_of(known[key]) != weights:
            said.append(f"{key} has other weights by now than were measured.")
    best = next(iter(_by_default(study, may_fail=False)), None)
    if best and best.key not in measured:
        said.append(f"The best trial is {best.key} by now, which is not among those measured.")
    return said


def _by_default(study: Study, *, may_fail: bool = True) -> list[Trial]:
    """The best trial with SAM, and the baseline."""
    best = next((t for t in study.ranking if not t.is_baseline), None)
    baseline = study.baseline if study.baseline and study.baseline.epochs else None
    found = [t for t in (best, baseline) if t]
    if not found and may_fail:
        raise SamtuneError(f"study {study.name!r} has no trial with weights to measure yet")
    return found
