"""A Gaussian process over settings, and whether one of them matters to it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.analysis.axes import Matrix

# On axes from 0 to 1. Shorter than the lower end would be noise taken for a law; at the upper end
# an axis has no influence any more.
LENGTHS = (0.3, 30.0)

Vector = NDArray[np.float64]


class Surface:
    """Scores as a smooth function of settings plus noise (Rasmussen and Williams 2006, chapter 2).

    A Matern kernel (nu = 5/2) with one length for each column, and white noise that the same
    settings differ by; both are chosen by the marginal likelihood.

    Args:
        columns: shape (trials, columns), each from 0 to 1.
        variances: of each score, beside that noise.
    """

    def __init__(
        self, columns: Matrix, scores: Sequence[float], variances: Sequence[float]
    ) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        values = np.array(scores)
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        # Without a column there is nothing but a level and noise.
        signal = ConstantKernel(1.0, (1e-2, 1e2))
        if columns.shape[1]:
            signal = signal * Matern([1.0] * columns.shape[1], LENGTHS, nu=2.5)
        self._columns = columns if columns.shape[1] else np.zeros((len(columns), 1))
        self._process = GaussianProcessRegressor(
            signal + WhiteKernel(0.1, (1e-4, 2.0)),
            alpha=np.array(variances) / self._scale**2 + 1e-10,
        )
        with _one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at the end of its range
            self._process.fit(self._columns, (values - self._mean) / self._scale)

    @property
    def log_likelihood(self) -> float:
        """The marginal one, of the standardised scores."""
        return float(self._process.log_marginal_likelihood_value_)

    def predict(self, columns: Matrix) -> tuple[Vector, Vector]:
        """The mean score at these settings and its standard error, without a trial's own noise."""
        with _one_thread():
            mean, deviation = self._process.predict(columns, return_std=True)
        noise = self._process.kernel_.k2.noise_level
        error = np.sqrt(np.maximum(deviation**2 - noise, 0.0))
        return mean * self._scale + self._mean, error * self._scale

    def greatest_difference(self, changed: Sequence[Matrix], deviations: float) -> float:
        """The most that the mean score differs by between these sets of settings.

        Args:
            changed: each of shape (settings, columns); what is compared is the mean over each.
            deviations: how many standard errors are added to every difference.
        """
        with _one_thread():
            mean, covariance = self._process.predict(np.vstack(changed), return_cov=True)
        size = len(changed[0])
        means = mean.reshape(len(changed), size).mean(1)
        blocks = covariance.reshape(len(changed), size, len(changed), size).mean((1, 3))
        # A trial's own noise is on the diagonal of each block, and is none of the mean's.
        blocks -= np.eye(len(changed)) * self._process.kernel_.k2.noise_level / size
        own = np.diag(blocks)
        variances = np.maximum(own[:, None] + own[None, :] - 2 * blocks, 0.0)
        differences = np.abs(means[:, None] - means[None, :]) + deviations * np.sqrt(variances)
        return float(differences.max() * self._scale)


def _one_thread() -> AbstractContextManager[Any]:
    """Of matrices as small as these, several threads spend most of their time waiting."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def p_without(
    columns: Matrix,
    scores: Sequence[float],
    variances: Sequence[float],
    left_out: Sequence[int],
    whole: Surface | None = None,
) -> float:
    """How probable scores are that depend this much on some columns, if they do not depend on them.

    The likelihood-ratio test against the surface that does not know the columns. A length's end
    is the end of its range there, so that half of the probability lies at a ratio of 1
    (Self and Liang 1987, case 5).

    Args:
        whole: the surface that knows all columns, where the caller has it at hand.
    """
    from scipy.stats import chi2

    whole = whole or Surface(columns, scores, variances)
    rest = Surface(np.delete(columns, left_out, axis=1), scores, variances).log_likelihood
    ratio = 2 * (whole.log_likelihood - rest)
    return float(0.5 * chi2.sf(ratio, len(left_out))) if ratio > 0 else 1.0
