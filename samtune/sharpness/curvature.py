"""The Hessian of a loss: its largest eigenvalues and its trace, by products with vectors."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.errors import SamtuneError
from samtune.sharpness.loss import FixedLoss
from samtune.sharpness.result import Curvature

EIGENVALUES = 5
PROBES = 12
TOLERANCE = 1e-3  # of an eigenvalue, relative
NOT_THE_SAME = "Check for deterministic"  # what curvlinops says where two passes differ


class NoCurvatureError(SamtuneError):
    """This model's Hessian cannot be had."""


def curvature(
    loss: FixedLoss,
    *,
    eigenvalues: int = EIGENVALUES,
    probes: int = PROBES,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Curvature:
    """The largest eigenvalues, by Lanczos, and the trace, by Hutchinson's estimate.

    The trace is the sum of the eigenvalues found and of what random signs say of the rest, from
    which their eigenvectors are projected out. That is unbiased, and what it varies by comes from
    the rest alone (Hutch++, Meyer et al. 2021, arXiv:2010.09649, takes a random subspace instead).

    Args:
        tick: called after each product of the Hessian with a vector.

    Raises:
        NoCurvatureError: the loss differs from one pass to the next, or torch cannot differentiate
            it twice.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    with _quietly():
        hessian = _operator(loss)

    def times(vector: NDArray[Any]) -> NDArray[Any]:
        with _quietly():
            product: NDArray[Any] = hessian @ vector.reshape(-1)
        tick()
        return product

    random = np.random.default_rng(seed)
    size = hessian.shape[0]
    operator = LinearOperator(hessian.shape, matvec=times, dtype=np.float32)
    try:
        found, vectors = eigsh(
            operator,
            k=min(eigenvalues, size - 1),
            which="LA",
            v0=random.standard_normal(size).astype(np.float32),
            tol=TOLERANCE,
        )
        rest = []
        for _ in range(probes):
            probe = random.choice(np.array([-1, 1], np.float32), size)
            probe -= vectors @ (vectors.T @ probe)
            rest.append(float(probe.astype(np.float64) @ times(probe)))
    except RuntimeError as error:  # torch's for an operation without such a derivative, too
        raise NoCurvatureError(_in_short(error)) from error
    values = sorted((float(value) for value in found), reverse=True)
    if not all(map(math.isfinite, [*values, *rest])):
        raise NoCurvatureError("its Hessian is not finite")
    trace = sum(values) + float(np.mean(rest))
    return Curvature(values, trace, float(np.std(rest, ddof=1)) / math.sqrt(probes))


def _operator(loss: FixedLoss) -> Any:
    """The Hessian as a SciPy operator, once the loss has shown that it is the same each time."""
    from curvlinops import HessianLinearOperator

    # A weight that the loss does not depend on has no gradient, which curvlinops insists on.
    loss.backward(loss.batches[0])
    params = [p for p in loss.params if p.grad is not None]
    loss.model.zero_grad()
    data = [({"inputs": inputs, "targets": targets}, targets) for inputs, targets in loss.batches]
    try:
        operator = HessianLinearOperator(
            _LossOfBatch(loss),
            _AsItIs(),
            params,
            data,
            batch_size_fn=lambda batch: len(batch["targets"]),
        )
    except RuntimeError as error:
        reason = "its loss differs from one pass to the next"
        raise NoCurvatureError(
            reason if NOT_THE_SAME in str(error) else _in_short(error)
        ) from error
    return operator.to_scipy()


class _LossOfBatch(nn.Module):
    """What curvlinops takes for the model: from a batch to its loss, whatever the task."""

    def __init__(self, loss: FixedLoss) -> None:
        super().__init__()
        self.model = loss.model
        self._loss = loss

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self._loss.of((batch["inputs"], batch["targets"]))


class _AsItIs(nn.Module):
    """What curvlinops takes for the loss; it weighs batches by their size for a mean."""

    reduction = "mean"

    def forward(self, loss: Tensor, _: Tensor) -> Tensor:
        return loss


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps off the terminal what torch says of its own future, and what curvlinops prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
