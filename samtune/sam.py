"""Sharpness-Aware Minimization: an optimizer around any `torch.optim` class.

SAM (Foret et al. 2021, arXiv:2010.01412) minimises the loss at the worst point within a distance
rho of the weights. One step computes the gradient g at w, climbs to w + e, computes the gradient
there, comes home, and lets the base optimizer step from w with that second gradient. The variants
differ in the climb alone:

    SAM     e = rho * g / ||g||
    ASAM    e = rho * T^2 g / ||T g||    T = |w| + eta (Kwon et al. 2021, arXiv:2102.11600)
    F-SAM   e = rho * d / ||d||          d = g - sigma * its running mean (Li et al. 2024,
                                         arXiv:2403.12350)
    MSAM    e = -rho * v / ||v||         v = the momentum, so no first pass (Becker et al. 2024,
                                         arXiv:2401.12033)
    SAM-ON  SAM with gradients of the norm layers alone (Mueller et al. 2023, arXiv:2306.04226):
            `loss.backward(inputs=norm_parameters(model))`

Only weights that have a gradient climb, and only they count in the norm. The neighbor has memory of
its own, and a parameter shows the one or the other: the weights themselves are never written to
between two steps, so they cannot come home changed, and coming home costs nothing. Whatever reads
their memory past the parameter, such as a view made once or a CUDA graph captured by hand, stays
at home; `samtune.selfcheck` finds models that do.

This file knows torch and nothing else of samtune, so that it can be taken home alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# The smallest norm whose square a float32 can hold: what is below climbs by less than rho.
SMALLEST_NORM = 1e-18


class SAM(Optimizer):
    """Moves the weights to their worst neighbor and back; the base optimizer does the rest.

    The base optimizer's state, parameter groups and `state_dict` are the wrapper's own, so
    learning-rate schedulers, checkpoints and parameter groups work as with the base alone. With
    rho = 0 in every group and one pass a step it is the base optimizer bit for bit.

    Args:
        params: parameters or parameter groups; a group may set its own `rho`, `adaptive`, `eta`,
            `sigma` and `mean_decay`.
        base_optimizer: the class that steps, such as `torch.optim.SGD`.
        rho: the distance to the neighbor, in the space of all weights together.
        adaptive: measure the distance as ASAM does, every weight relative to its magnitude.
        eta: added to the magnitudes of ASAM, so that a weight of 0 can move.
        sigma: how much of the gradients' running mean F-SAM leaves out of the climb; 0 is SAM.
        mean_decay: of that running mean.
        base_kwargs: passed to the base optimizer (`lr`, `momentum`, ...).

    Attributes:
        asynchronous: never wait for the device: whether a climb is finite is decided there, too.
            True by default on accelerators with a fused base optimizer, which alone can do that.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        *,
        eta: float = 0.0,
        sigma: float = 0.0,
        mean_decay: float = 0.9,
        **base_kwargs: Any,
    ) -> None:
        own = {
            "rho": rho,
            "adaptive": adaptive,
            "eta": eta,
            "sigma": sigma,
            "mean_decay": mean_decay,
        }
        super().__init__(params, own)
        for group in self.param_groups:
            _check(group)
        self.base_optimizer = base_optimizer(self.param_groups, **base_kwargs)
        self.defaults = {**self.base_optimizer.defaults, **own}
        self.asynchronous = all(
            group.get("fused") and not group["sigma"] and not any(p.is_cpu for p in group["params"])
            for group in self.param_groups
        )
        self._own_settings = tuple(own)
        self._skipped_steps: int | Tensor = 0
        self._neighbors: dict[Tensor, Tensor] = {}
        self._away: list[tuple[Tensor, Tensor]] = []  # parameters, and the weights they left
        self._means: dict[Tensor, Tensor] = {}
        self._not_finite: bool | Tensor = False
        self._share_with_base()

    @property
    def is_plain(self) -> bool:
        """Whether every rho is 0: then a step is the base optimizer's and one pass is enough."""
        return all(group["rho"] == 0 for group in self.param_groups)

    @property
    def skipped_steps(self) -> int:
        """How many steps were left out because a gradient was not finite."""
        return int(self._skipped_steps)

    @contextmanager
    def at_worst_neighbor(self) -> Iterator[None]:
        """Hold the weights at w + rho * g / ||g||, with g the gradients on entry.

        On leaving, even by an exception, the weights are exactly what and where they were. The
        gradients are cleared on entry, so those found on leaving belong to the neighbor; an
        exception clears them too. If ||g|| is not finite `descend` skips this step; the weights
        then stay where they are, or, where this is `asynchronous`, are not finite until they come
        home.

        Raises:
            RuntimeError: no parameter has a gradient.
        """
        self._must_be_home()
        with self._coming_home():
            self._climb_along_gradients()
            self.zero_grad()
            yield

    @contextmanager
    def at_momentum_neighbor(self) -> Iterator[None]:
        """Hold the weights at w - rho * v / ||v||, with v the base optimizer's momentum.

        This is MSAM, which needs no gradient to climb; before the first step there is no momentum
        and the weights stay. They come home as from `at_worst_neighbor`.

        Raises:
            ValueError: the base optimizer keeps no momentum.
        """
        self._must_be_home()
        with self._coming_home():
            self._climb_along_momentum()
            yield

    @torch.no_grad()
    def descend(self) -> None:
        """One step of the base optimizer with the gradients that are there.

        After a climb that was not finite it leaves everything alone and counts a skipped step.
        """
        skip, self._not_finite = self._not_finite, False
        if isinstance(skip, Tensor):
            self._step_unless(skip)
        elif skip:
            self.skip_step()
        else:
            self.base_optimizer.step()
        # torch's schedulers read this flag to warn of a schedule that runs ahead of the steps.
        self._opt_called = True

    def skip_step(self) -> None:
        """Counts a step that is not made, for callers who find the gradients not finite."""
        self._not_finite = False
        self._skipped_steps = self._skipped_steps + 1
        self._opt_called = True

    def first_step(self, zero_grad: bool = False) -> None:
        """Climb to the neighbor; prefer `at_worst_neighbor`, which cannot leave one there.

        The gradients' memory may be used for the climb: their values are lost.
        """
        self._must_be_home()
        self._climb_along_gradients()
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
        """Adds a group, which may bring its own `rho`, `adaptive`, `eta`, `sigma`, `mean_decay`."""
        if "base_optimizer" not in self.__dict__:  # torch's constructor adds the first groups
            super().add_param_group(param_group)
            return
        for key in self._own_settings:
            param_group.setdefault(key, self.defaults[key])
        _check(param_group)
        self.base_optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state (momentum and all), rho, F-SAM's means, the skipped steps."""
        state = {**self.base_optimizer.state_dict(), "skipped_steps": self.skipped_steps}
        if self._means:
            state["gradient_means"] = {
                i: self._means[p] for i, p in enumerate(self._parameters()) if p in self._means
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.base_optimizer.load_state_dict(state_dict)
        self._skipped_steps = state_dict["skipped_steps"]
        means = state_dict.get("gradient_means", {})
        self._means = {
            p: means[i].to(p.device, copy=True)
            for i, p in enumerate(self._parameters())
            if i in means
        }
        self._share_with_base()

    def __getstate__(self) -> dict[str, Any]:
        self._must_be_home()
        return {**self.__dict__, "_neighbors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share_with_base()

    def _share_with_base(self) -> None:
        # Loading replaces the base's groups and state by new objects: follow them.
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    @torch.no_grad()
    def _climb_along_gradients(self) -> None:
        """From w to w + rho * T^2 d / ||T d||; the gradients' memory holds what comes between."""
        climbs = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                climbs.append((group, params, [p.grad for p in params]))
        if not climbs:
            raise RuntimeError("no parameter has a gradient: call backward() on the loss first")

        for group, params, directions in climbs:
            if group["sigma"]:
                self._leave_out_mean(group, params, directions)
            if group["adaptive"]:
                torch._foreach_mul_(directions, self._magnitudes(group, params))
        inverse = self._inverse_norm([d for _, _, directions in climbs for d in directions])
        if inverse is None:
            return

        for group, params, directions in climbs:
            if group["sigma"]:
                self._update_mean(group, params, directions)
            if group["rho"] == 0:
                continue
            scale = group["rho"] * inverse
            if group["adaptive"] and group["eta"]:
                torch._foreach_mul_(directions, self._room_for(params))  # it holds T until now
            relative = group["adaptive"] and not group["eta"]
            self._compute_neighbors(params, directions, scale, relative=relative)
        self._leave([p for group, params, _ in climbs if group["rho"] for p in params])

    @torch.no_grad()
    def _climb_along_momentum(self) -> None:
        climbs = []
        for group in self.param_groups:
            if not (group.get("momentum") or "betas" in group):
                raise ValueError("MSAM climbs along the momentum, and this optimizer keeps none")
            params = [p for p in group["params"] if self._momentum(p) is not None]
            climbs.append((group, params, [self._momentum(p) for p in params]))
        momenta = [v for _, _, found in climbs for v in found]
        inverse = self._inverse_norm(momenta) if momenta else None
        if inverse is None:
            return
        climbs = [climb for climb in climbs if climb[0]["rho"] and climb[1]]
        for group, params, found in climbs:
            self._compute_neighbors(params, found, -group["rho"] * inverse)
        self._leave([p for _, params, _ in climbs for p in params])

    def _compute_neighbors(
        self,
        params: list[Tensor],
        directions: list[Tensor],
        scale: float | Tensor,
        *,
        relative: bool = False,
    ) -> None:
        """w + scale * d, or w + scale * w * d if `relative`."""
        neighbors = self._room_for(params)
        if isinstance(scale, float) and any(p.is_cpu for p in params):
            # One pass over the memory, which is what a CPU waits for.
            for p, d, neighbor in zip(params, directions, neighbors, strict=True):
                if relative:
                    torch.addcmul(p, p, d, value=scale, out=neighbor)
                else:
                    torch.add(p, d, alpha=scale, out=neighbor)
        else:
            # Few kernels, which is what a GPU waits for; a scale that is a tensor stays there.
            torch._foreach_copy_(neighbors, directions)
            torch._foreach_mul_(neighbors, scale)
            if relative:
                torch._foreach_mul_(neighbors, params)
            torch._foreach_add_(neighbors, params)

    def _leave(self, params: list[Tensor]) -> None:
        # Last of all: what fails before has moved nothing.
        for p in params:
            self._away.append((p, p.data))
            p.data = self._neighbors[p]
        # So that autograd refuses a graph that was recorded at other weights.
        torch.autograd.graph.increment_version(params)

    def _must_be_home(self) -> None:
        if self._away:
            raise RuntimeError("the weights are at the neighbor already: second_step() is missing")

    def _momentum(self, param: Tensor) -> Any:
        state = self.state.get(param, {})
        return state.get("momentum_buffer", state.get("exp_avg"))

    def _magnitudes(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """ASAM's T, up to signs, which T g's norm and T^2 g do not see."""
        if not group["eta"]:
            return params
        magnitudes = self._room_for(params)
        torch._foreach_copy_(magnitudes, params)
        torch._foreach_abs_(magnitudes)
        torch._foreach_add_(magnitudes, group["eta"])
        return magnitudes

    def _leave_out_mean(
        self, group: dict[str, Any], params: list[Tensor], directions: list[Tensor]
    ) -> None:
        known = [
            (d, self._means[p]) for p, d in zip(params, directions, strict=True) if p in self._means
        ]
        if known:
            ds, means = zip(*known, strict=True)
            torch._foreach_add_(list(ds), list(means), alpha=-group["sigma"])

    def _update_mean(
        self, group: dict[str, Any], params: list[Tensor], directions: list[Tensor]
    ) -> None:
        decay, sigma = group["mean_decay"], group["sigma"]
        for p, d in zip(params, directions, strict=True):
            if p in self._means:
                # decay * mean + (1 - decay) * g, where g = d + sigma * mean
                self._means[p].mul_(decay + (1 - decay) * sigma).add_(d, alpha=1 - decay)
            else:
                self._means[p] = d.clone()

    def _inverse_norm(self, directions: list[Tensor]) -> float | Tensor | None:
        """1 / ||d||, or None where that is not finite and this may be asked of the device."""
        norm = _global_norm(directions)
        if self.asynchronous:
            self._not_finite = norm.isfinite().logical_not().float()
            return 1 / norm.clamp_min(SMALLEST_NORM)
        length = norm.item()
        self._not_finite = not math.isfinite(length)
        return None if self._not_finite else 1 / max(length, SMALLEST_NORM)

    def _step_unless(self, skip: Tensor) -> None:
        # The protocol of torch's gradient scaler: a fused step reads on the device whether to skip.
        base: Any = self.base_optimizer
        base.found_inf, base.grad_scale = skip, None
        try:
            base.step()
        finally:
            del base.found_inf, base.grad_scale
        self._skipped_steps = self._skipped_steps + skip

    def _room_for(self, params: list[Tensor]) -> list[Tensor]:
        for p in params:
            room = self._neighbors.get(p)
            if room is None or _layout(room) != _layout(p):
                self._neighbors[p] = torch.empty_like(p, memory_format=torch.preserve_format)
        return [self._neighbors[p] for p in params]

    @contextmanager
    def _coming_home(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._not_finite = False
            self.zero_grad()
            raise
        finally:
            self._come_home()

    def _come_home(self) -> None:
        # By our own list: a weight without a gradient in the second pass must come home too.
        for p, weights in self._away:
            p.data = weights
        torch.autograd.graph.increment_version([p for p, _ in self._away])
        self._away = []


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


def norm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The weights and biases of the normalisation layers, found by type and not by name.

    Raises:
        ValueError: there are none.
    """
    found = {
        p: None
        for module in model.modules()
        if isinstance(module, NORM_LAYERS)
        for p in module.parameters(recurse=False)
        if p.requires_grad
    }
    if not found:
        raise ValueError("SAM-ON climbs with the norm layers alone, and this model has none")
    return list(found)


def _check(group: dict[str, Any]) -> None:
    for key in ("rho", "eta", "sigma"):
        if not 0 <= group[key] < float("inf"):
            raise ValueError(f"{key} must be 0 or more and finite, got {group[key]}")
    if not 0 <= group["mean_decay"] < 1:
        raise ValueError(f"mean_decay must be at least 0 and below 1, got {group['mean_decay']}")
    if group["sigma"] and group["adaptive"]:
        raise ValueError("sigma (F-SAM) and adaptive (ASAM) exclude each other")


def _global_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, in float32 at least: 100 halves of 6e4 overflow."""
    has_double = any(t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if has_double else torch.float32
    if all(t.is_cpu and t.dtype == dtype for t in tensors):
        # BLAS reads twice as fast here as torch's own norm does.
        flat = [_flat(t) for t in tensors]
        norms = [torch.dot(t, t).sqrt() for t in flat]
    else:
        norms = list(torch._foreach_norm(tensors, 2, dtype=dtype))
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return norm


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _flat(tensor: Tensor) -> Tensor:
    """All elements in the order of memory, so that channels_last needs no copy."""
    if tensor.dim() == 4 and not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)
