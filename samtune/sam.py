"""Sharpness-Aware Minimization: an optimizer around any `torch.optim` class.

SAM (Foret et al. 2021, arXiv:2010.01412) minimises the loss at the worst point within a distance
rho of the weights. One step computes the gradient at w, climbs to w + rho * g / ||g||, computes the
gradient there, comes home, and lets the base optimizer step from w with that second gradient.
ASAM (Kwon et al. 2021, arXiv:2102.11600) measures the distance relative to each weight's size.

This file knows torch and nothing else of samtune, so that it can be taken home alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class SAM(Optimizer):
    """Moves the weights to their worst neighbor and back; the base optimizer does the rest.

    The base optimizer's state, parameter groups and `state_dict` are the wrapper's own, so
    learning-rate schedulers, checkpoints and parameter groups work as with the base alone. With
    rho = 0 in every group and one pass a step it is the base optimizer bit for bit.

    Args:
        params: parameters or parameter groups; a group may set its own `rho` and `adaptive`.
        base_optimizer: the class that steps, such as `torch.optim.SGD`.
        rho: the distance to the neighbor, in the space of all weights together.
        adaptive: measure the distance as ASAM does, every weight relative to its magnitude.
        base_kwargs: passed to the base optimizer (`lr`, `momentum`, ...).

    Raises:
        ValueError: rho is negative or not finite.
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **base_kwargs: Any,
    ) -> None:
        super().__init__(params, {"rho": rho, "adaptive": adaptive})
        for group in self.param_groups:
            if not 0 <= group["rho"] < float("inf"):
                raise ValueError(f"rho must be 0 or more and finite, got {group['rho']}")
        self.base_optimizer = base_optimizer(self.param_groups, **base_kwargs)
        self.defaults = {**self.base_optimizer.defaults, **self.defaults}
        self.skipped_steps = 0
        self._home: dict[Tensor, Tensor] = {}
        self._away: list[Tensor] = []
        self._climb_is_finite = True
        self._share_with_base()

    @property
    def is_plain(self) -> bool:
        """Whether every rho is 0: then a step is the base optimizer's and one pass is enough."""
        return all(group["rho"] == 0 for group in self.param_groups)

    @contextmanager
    def at_worst_neighbor(self) -> Iterator[None]:
        """Hold the weights at w + rho * g / ||g||, with g the gradients on entry.

        On leaving, even by an exception, the weights are exactly what they were. The gradients
        are cleared on entry, so those found on leaving belong to the neighbor; an exception
        clears them too. If ||g|| is not finite the weights stay and `descend` skips this step.

        Raises:
            RuntimeError: no parameter has a gradient.
        """
        self._leave_home()
        self.zero_grad()
        try:
            yield
        except BaseException:
            self.zero_grad()
            raise
        finally:
            self._come_home()

    def descend(self) -> None:
        """One step of the base optimizer with the gradients that are there.

        After a climb that was not finite it leaves everything alone and counts a skipped step.
        """
        if self._climb_is_finite:
            self.base_optimizer.step()
        else:
            self.skipped_steps += 1
            self._climb_is_finite = True
        # torch's schedulers read this flag to warn of a schedule that runs ahead of the steps.
        self._opt_called = True

    def first_step(self, zero_grad: bool = False) -> None:
        """Climb to the neighbor; prefer `at_worst_neighbor`, which cannot leave one there.

        The gradients' memory is used for the climb, so their values are lost.
        """
        self._leave_home()
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Come home and descend with the gradients found at the neighbor."""
        self._come_home()
        self.descend()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both steps at once, after a `backward()` of the caller's.

        Args:
            closure: computes the loss anew and calls `backward()` on it.

        Returns:
            What the closure returned: the loss at the neighbor.
        """
        if closure is None:
            raise ValueError("SAM needs a closure that computes the loss and its gradients again")
        with self.at_worst_neighbor(), torch.enable_grad():
            loss = closure()
        self.descend()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, which may bring its own `rho` and `adaptive`."""
        if "base_optimizer" not in self.__dict__:  # torch's constructor adds the first groups
            super().add_param_group(param_group)
            return
        param_group.setdefault("rho", self.defaults["rho"])
        param_group.setdefault("adaptive", self.defaults["adaptive"])
        self.base_optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state (momentum and all), rho, and the skipped steps."""
        return {**self.base_optimizer.state_dict(), "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.base_optimizer.load_state_dict(state_dict)
        self.skipped_steps = state_dict["skipped_steps"]
        self._share_with_base()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_home": {}, "_away": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share_with_base()

    def _share_with_base(self) -> None:
        # Loading replaces the base's groups and state by new objects: follow them.
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    @torch.no_grad()
    def _leave_home(self) -> None:
        if self._away:
            raise RuntimeError("the weights are at the neighbor already: second_step() is missing")
        groups = [self._with_gradients(group) for group in self.param_groups]
        if not any(params for params, _ in groups):
            raise RuntimeError("no parameter has a gradient: call backward() on the loss first")

        for group, (params, grads) in zip(self.param_groups, groups, strict=True):
            if group["adaptive"]:
                torch._foreach_mul_(grads, params)  # T g with T = |w|, up to the sign
        norm = _global_norm([g for _, grads in groups for g in grads])
        self._climb_is_finite = bool(norm.isfinite())
        if not self._climb_is_finite:
            return
        inverse = 1 / norm.clamp_min(torch.finfo(norm.dtype).tiny)

        for group, (params, grads) in zip(self.param_groups, groups, strict=True):
            if group["rho"] == 0 or not params:
                continue
            self._remember(params)
            if group["adaptive"]:
                torch._foreach_mul_(grads, params)  # T^2 g
            torch._foreach_mul_(grads, group["rho"] * inverse)
            torch._foreach_add_(params, grads)

    @torch.no_grad()
    def _come_home(self) -> None:
        # By our own list: a weight without a gradient in the second pass must come home too.
        away, self._away = self._away, []
        if away:
            torch._foreach_copy_(away, [self._home[p] for p in away])

    def _remember(self, params: list[Tensor]) -> None:
        for p in params:
            if p not in self._home:
                self._home[p] = torch.empty_like(p, memory_format=torch.preserve_format)
        torch._foreach_copy_([self._home[p] for p in params], params)
        self._away += params

    @staticmethod
    def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        params = [p for p in group["params"] if p.grad is not None]
        return params, [p.grad for p in params]


@contextmanager
def frozen_batchnorm_stats(model: nn.Module) -> Iterator[None]:
    """Keep batch norm's running statistics as they are; batches are still normalised by their own.

    The second pass of SAM runs at weights the model never keeps, so its statistics must not reach
    evaluation. Covers every batch norm, synchronised ones too, `num_batches_tracked` included;
    may be nested, and an exception leaves the model as it was.
    """
    tracking = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def _global_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, in float32 at least: 100 halves of 6e4 overflow."""
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    norms = torch._foreach_norm(tensors, 2, dtype=dtype)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return norm
