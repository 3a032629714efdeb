"""Where a Gaussian process over settings and epochs would look next.

The epoch is one more axis (as in Kandasamy et al. 2017, arXiv:1703.06240): a trial that was stopped
early is seen at the epoch it came to, and says the less of the end the more curves are seen to
cross. What is seen is the value expected at the end, as if all curves gained alike (`curves`), so
that the process has only to learn how they do not.

The next point is Thompson's (1933): the best of one function drawn from the process. Trials that
run side by side so differ without further ado.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from samtune.analysis.axes import axes_of, matrix
from samtune.analysis.scores import thinned
from samtune.config.schema import StudyConfig
from samtune.config.space import Choice
from samtune.tuning.space import coordinates, to_unit, values_at

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

ANYWHERE, NEARBY = 256, 32  # candidates
CENTRES, SPREAD = 4, 0.1  # the others lie about so many of the best, so far in the unit cube
MOST = 60  # trials learned from; the cost grows with their third power
JITTER = 1e-6


@dataclass(frozen=True)
class Seen:
    """What is known of a trial.

    Attributes:
        values: by path.
        params: by the names of `coordinates`, choices as their indices.
        ends: epoch -> the value expected at the end, given the trial's value then.
    """

    values: dict[str, Any]
    params: dict[str, Any]
    ends: dict[int, float]


def thompson(
    config: StudyConfig,
    trials: Sequence[Seen],
    seed: int,
    is_new: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """The best new values for one function drawn from the process that these trials are of.

    Args:
        trials: each seen at one epoch at least.
    """
    random = np.random.default_rng(seed)
    epochs = config.trial.training.epochs
    axes = axes_of(config)
    sign = 1 if config.mode == "max" else -1
    best_first = sorted(trials, key=lambda t: -sign * t.ends[max(t.ends)])
    scores = [sign * t.ends[max(t.ends)] for t in best_first]
    # How bad the bad ones are says nothing of where the best is: no process is that uneven.
    floor = 2 * float(np.median(scores)) - scores[0]
    learned = _thinned(best_first)
    rows = [
        (i, [*columns, epoch / epochs], max(sign * trial.ends[epoch], floor))
        for i, (trial, columns) in enumerate(
            zip(learned, matrix(axes, [t.values for t in learned]).tolist(), strict=True)
        )
        for epoch in sorted({max(trial.ends), *(trial.ends.keys() & {(epochs + 1) // 2, epochs})})
    ]
    owners, inputs, outputs = (np.array(part) for part in zip(*rows, strict=True))
    process = Process(inputs, (outputs - outputs.mean()) / (outputs.std() or 1.0), owners)
    points = [
        p for p in _candidates(config, best_first[:CENTRES], random, seed) if is_new(p)
    ] or _candidates(config, [], random, seed)
    at_the_end = np.hstack([matrix(axes, points), np.ones((len(points), 1))])
    mean, covariance = process.predict(at_the_end)
    lower = np.linalg.cholesky(covariance + JITTER * np.eye(len(points)))
    return points[int(np.argmax(mean + lower @ random.standard_normal(len(points))))]


def _thinned(best_first: Sequence[Seen]) -> list[Seen]:
    """The better two thirds of what can be learned from, and some of the others."""
    best, rest = best_first[: MOST * 2 // 3], best_first[MOST * 2 // 3 :]
    return [*best, *thinned(rest, MOST - len(best))]


def _candidates(
    config: StudyConfig, centres: Sequence[Seen], random: np.random.Generator, seed: int
) -> list[dict[str, Any]]:
    from scipy.stats import qmc  # slow to import

    names = list(coordinates(config))
    shares = [qmc.Sobol(len(names), scramble=True, seed=seed).random(ANYWHERE)]
    for centre in centres:
        about = random.random((NEARBY, len(names)))
        for i, (name, axis) in enumerate(coordinates(config).items()):
            if name not in centre.params:
                continue
            if isinstance(axis, Choice):
                kept = random.random(NEARBY) < 1 - SPREAD
                about[kept, i] = (centre.params[name] + 0.5) / len(axis.choice)
            else:
                near = to_unit(axis, centre.params[name]) + SPREAD * random.standard_normal(NEARBY)
                about[:, i] = near.clip(0, 1)
        shares.append(about)
    return [
        values_at(config, dict(zip(names, row, strict=True))) for row in np.vstack(shares).tolist()
    ]


class Process:
    """A Gaussian process (Rasmussen and Williams 2006, chapter 2) of standardised outputs.

    A Matern kernel (nu = 5/2) with one length for each column, a noise that all rows of a trial
    share, and one that they do not. All are at the maximum of the posterior, under log-normal
    priors: with six trials the likelihood alone takes noise for a law.

    Args:
        inputs: shape (rows, columns), the last column the epoch; each from 0 to 1.
        owners: of each row, which trial it is of.
    """

    def __init__(self, inputs: Matrix, outputs: Vector, owners: NDArray[np.int_]) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._same = (owners[:, None] == owners[None, :]).astype(float)
        columns = inputs.shape[1]
        # The lengths of settings and epochs, the variance of the function, and of both noises.
        middle = np.log([*[0.4] * (columns - 1), 1.0, 1.0, 0.02, 0.01])
        spread = np.array([*[0.7] * columns, 0.5, 1.0, 1.0])
        found = minimize(
            lambda logs: self._loss(logs, middle, spread),
            middle,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(middle - 4 * spread, middle + 4 * spread, strict=True)),
            options={"maxiter": 30},
        )
        self._lengths = np.exp(found.x[:columns])
        self._variance, shared, own = np.exp(found.x[columns:])
        kernel = self._variance * _matern(inputs, inputs, self._lengths)[0]
        self._factor = cho_factor(self._noisy(kernel, shared, own), lower=True)
        self._weights = cho_solve(self._factor, outputs)

    def predict(self, inputs: Matrix) -> tuple[Vector, Matrix]:
        """The function's mean and covariance at these inputs, without noise."""
        between = self._variance * _matern(inputs, self._inputs, self._lengths)[0]
        prior = self._variance * _matern(inputs, inputs, self._lengths)[0]
        return between @ self._weights, prior - between @ cho_solve(self._factor, between.T)

    def _noisy(self, kernel: Matrix, shared: float, own: float) -> Matrix:
        noisy: Matrix = kernel + shared * self._same + (own + JITTER) * np.eye(len(kernel))
        return noisy

    def _loss(self, logs: Vector, middle: Vector, spread: Vector) -> tuple[float, Vector]:
        """The negative log posterior of these logarithms, and its gradient."""
        columns = self._inputs.shape[1]
        lengths = np.exp(logs[:columns])
        variance, shared, own = np.exp(logs[columns:])
        shape, squares, slope = _matern(self._inputs, self._inputs, lengths)
        factor = cho_factor(self._noisy(variance * shape, shared, own), lower=True)
        weights = cho_solve(factor, self._outputs)
        away = (logs - middle) / spread
        loss = 0.5 * self._outputs @ weights + np.log(np.diag(factor[0])).sum()
        # d loss / d kernel; the chain rule gives the rest.
        by = 0.5 * (cho_solve(factor, np.eye(len(shape))) - np.outer(weights, weights))
        gradient = [
            *np.einsum("ij,ijk->k", by * slope * variance, squares),
            (by * shape).sum() * variance,
            (by * self._same).sum() * shared,
            np.trace(by) * own,
        ]
        return float(loss + 0.5 * away @ away), np.array(gradient) + away / spread


def _matern(
    one: Matrix, other: Matrix, lengths: Vector
) -> tuple[Matrix, NDArray[np.float64], Matrix]:
    """The kernel, the squared scaled differences by column, and what these are times in its slope.

    The slope of the kernel by the logarithm of a length is the last times that column's square.
    """
    squares = ((one[:, None, :] - other[None, :, :]) / lengths) ** 2
    distance = math.sqrt(5) * np.sqrt(squares.sum(-1))
    decay = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * decay, squares, 5 / 3 * (1 + distance) * decay
