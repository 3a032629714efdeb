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
at home; `samtune doctor --sam` finds models that do. FSDP2 (`fully_shard`) is such a reader: there
the neighbor is written into the shards, and the weights are copied back bit for bit.

A step whose gradient is not finite is left out and counted. If it is the gradient of the climb, the
one found at the neighbor is made NaN: the mark is in the gradients themselves, where DDP's
all-reduce carries it to every rank, and a gradient scaler and `zero_grad` find it as well.

This file knows torch and nothing else of samtune, so that it can be taken home alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT
from torch.utils.hooks import RemovableHandle

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

    Raises:
        ValueError: an argument is out of its range, or the weights belong to the first FSDP.
    """

    # torch.amp.GradScaler then calls `step` always, and leaves unscaling and skipping to it.
    _step_supports_amp_scaling = True

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
        self._own_settings = tuple(own)
        self._skipped_steps: int | Tensor = 0
        self._neighbors: dict[Tensor, Tensor] = {}
        self._away: list[tuple[Tensor, Tensor]] = []  # parameters, and the weights they left
        self._means: dict[Tensor, Tensor] = {}
        self._climbed = False  # since the last step
        self._mark: float | Tensor | None = None  # NaN if the climb was not finite
        self._hooks: list[RemovableHandle] = []
        self._share_with_base()

    @property
    def is_plain(self) -> bool:
        """Whether every rho is 0: then a step is the base optimizer's and one pass is enough."""
        return all(group["rho"] == 0 for group in self.param_groups)

    @property
    def asynchronous(self) -> bool:
        """Whether a step waits for nothing: what is finite is then decided on the device, too.

        So it is on accelerators with a fused base optimizer, which alone can do that.
        """
        reads_found_inf = getattr(self.base_optimizer, "_step_supports_amp_scaling", False)
        return reads_found_inf and all(map(self._skips_on_device, self.param_groups))

    @property
    def skipped_steps(self) -> int:
        """How many steps were left out because a gradient was not finite."""
        return int(self._skipped_steps)

    @contextmanager
    def at_worst_neighbor(self) -> Iterator[None]:
        """Hold the weights at w + rho * g / ||g||, with g the gradients on entry.

        On leaving, even by an exception, the weights are exactly what and where they were. The
        gradients are cleared on entry, so those found on leaving belong to the neighbor; an
        exception clears them too. If ||g|| is not finite those found on leaving are not either, so
        that `descend` skips this step; the weights then stay where they are, or, where this is
        `asynchronous`, are NaN until they come home.

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

    @Optimizer.profile_hook_step
    @torch.no_grad()
    def descend(self, grad_norm: Tensor | None = None) -> None:
        """One step of the base optimizer with the gradients that are there, if they are finite.

        If not, it leaves everything alone and counts a skipped step. Every way to make a step ends
        here, so this is where the hooks of `register_step_pre_hook` and `_post_hook` are called.

        Args:
            grad_norm: of these gradients, from who knows it, as `clip_grad_norm_` does; by default
                it is computed.
        """
        finite = self._is_finite(grad_norm)
        if isinstance(finite, Tensor):
            self._step_unless(finite.logical_not().float())
        elif finite:
            self.base_optimizer.step()
        else:
            self._skipped_steps = self._skipped_steps + 1
        torch.clear_autocast_cache()
        self._climbed = False
        # torch's schedulers read this flag to warn of a schedule that runs ahead of the steps.
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
        """Both steps at once, after a `backward()` of the caller's; or the second one alone.

        Without a closure it is `second_step`, which is what `torch.amp.GradScaler.step` needs.

        Args:
            closure: computes the loss anew and calls `backward()` on it.

        Returns:
            What the closure returned: the loss at the neighbor.

        Raises:
            ValueError: there is no closure, and the gradients are not the neighbor's.
        """
        if closure is not None:
            with self.at_worst_neighbor(), torch.enable_grad():
                loss = closure()
            self.descend()
            return loss
        if not (self._climbed or self.is_plain):
            self._climb_nowhere()
        self._come_home()
        grad_scale = getattr(self, "grad_scale", None)  # set by a GradScaler while it calls this
        if grad_scale is not None:
            torch._foreach_mul_(_local(self._gradients()), 1 / grad_scale)
        self.descend()
        return None

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
        found = self.base_optimizer.state_dict()
        state = dict(found["state"])
        for i, p in enumerate(self._parameters()):
            if p in self._means:
                state[i] = {**state.get(i, {}), "gradient_mean": self._means[p]}
        return {**found, "state": state, "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Takes the state of a plain base optimizer, too, and that of the well-known implementation,
        which holds no momentum: what they do not know of SAM's settings stays as it is. A state
        that does not fit changes nothing.
        """
        groups = [dict(group) for group in state_dict["param_groups"]]
        for group, current in zip(groups, self.param_groups, strict=False):
            for key in self._own_settings:
                group.setdefault(key, current[key])
            _check(group)
        ids = chain.from_iterable(group["params"] for group in groups)
        params = dict(zip(ids, self._parameters(), strict=False))
        means, state = {}, {}
        for i, found in state_dict["state"].items():
            if "gradient_mean" in found:
                means[params[i]] = found["gradient_mean"].to(params[i].device, copy=True)
            kept = {k: v for k, v in found.items() if k not in ("gradient_mean", "old_p")}
            if kept:
                state[i] = kept
        skipped = int(state_dict.get("skipped_steps", self._skipped_steps))

        base = self.base_optimizer
        before = base.state, base.param_groups
        try:
            base.load_state_dict({"state": state, "param_groups": groups})
        except BaseException:
            base.state, base.param_groups = before
            raise
        self._means, self._skipped_steps = means, skipped
        self._share_with_base()

    def __getstate__(self) -> dict[str, Any]:
        self._must_be_home()
        # As torch does, without hooks; and without a `step` that someone wrapped, since the wrapper
        # would step the original.
        return {
            name: {} if name == "_neighbors" else value
            for name, value in self.__dict__.items()
            if name != "step" and not name.startswith("_optimizer_")
        }

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

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters() if p.grad is not None and p.grad.numel()]

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
        self._climbed = True

        for group, params, directions in climbs:
            if group["sigma"]:
                self._leave_out_mean(group, params, directions)
            if group["adaptive"]:
                torch._foreach_mul_(_local(directions), self._magnitudes(group, params))
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
                torch._foreach_mul_(_local(directions), self._room_for(params))  # T until now
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
        self._climbed = True
        momenta = [v for _, _, found in climbs for v in found]
        inverse = self._inverse_norm(momenta) if momenta else None
        if inverse is None:
            return
        climbs = [climb for climb in climbs if climb[0]["rho"] and climb[1]]
        for group, params, found in climbs:
            self._compute_neighbors(params, found, -group["rho"] * inverse)
        self._leave([p for _, params, _ in climbs for p in params])

    def _climb_nowhere(self) -> None:
        """Where every gradient is 0, which is how torch.distributed.checkpoint asks for a state."""
        gradients = self._gradients()
        if not gradients or _global_norm(gradients).item() != 0:
            raise ValueError(
                "SAM's step needs a closure that computes the loss and its gradients again, or "
                "first_step() before; for a step of the base optimizer alone, call descend()"
            )
        self._climb_along_gradients()

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
        params, directions = _local(params), _local(directions)
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
            neighbor = self._neighbors[p]
            if _is_sharded(p):
                [shard] = _local([p])
                home = shard.clone()
                shard.copy_(neighbor)
                self._away.append((p, neighbor.copy_(home)))
            else:
                self._away.append((p, p.data))
                p.data = neighbor
        self._forget_other_weights(params)

    def _forget_other_weights(self, params: list[Tensor]) -> None:
        # So that autograd refuses a graph that was recorded at other weights, and an autocast
        # around both passes does not go on with what it has rounded in the first.
        torch.autograd.graph.increment_version([p for p in params if not _is_sharded(p)])
        torch.clear_autocast_cache()

    def _must_be_home(self) -> None:
        if self._away or self._hooks:
            raise RuntimeError("the weights are at the neighbor already: second_step() is missing")

    def _momentum(self, param: Tensor) -> Any:
        state = self.state.get(param, {})
        return state.get("momentum_buffer", state.get("exp_avg"))

    def _magnitudes(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """ASAM's T, up to signs, which T g's norm and T^2 g do not see."""
        if not group["eta"]:
            return _local(params)
        magnitudes = self._room_for(params)
        torch._foreach_copy_(magnitudes, _local(params))
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
            ds, means = (_local(column) for column in zip(*known, strict=True))
            torch._foreach_add_(ds, means, alpha=-group["sigma"])

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
            inverse = torch.where(norm.isfinite(), 1 / norm.clamp_min(SMALLEST_NORM), math.nan)
            self._mark = 0 * inverse
            return inverse
        length = norm.item()
        if math.isfinite(length):
            return 1 / max(length, SMALLEST_NORM)
        self._mark = math.nan
        # Before DDP takes the mean of all ranks' gradients, for they all must skip this step.
        self._hooks = [
            p.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
            for p in self._parameters()
            if p.requires_grad
        ]
        return None

    def _is_finite(self, grad_norm: Tensor | None) -> bool | Tensor:
        """Whether the gradients are; a tensor if the device shall not be asked."""
        gradients = self._gradients()
        if not gradients:
            return True
        if self.asynchronous:
            largest = grad_norm
            if largest is None:
                norms = torch._foreach_norm(_numbers(gradients), math.inf)
                largest = torch.stack([n.to(norms[0].device) for n in norms])
            return largest.isfinite().all()
        norm: Any = _global_norm(gradients) if grad_norm is None else grad_norm
        if math.isfinite((norm.full_tensor() if _is_sharded(norm) else norm).item()):
            return True
        if grad_norm is not None:
            return False
        # Finite gradients can have a norm that is not.
        smaller = [gradient * 1e-30 for gradient in gradients]
        return math.isfinite(_global_norm(smaller).item())

    def _skips_on_device(self, group: dict[str, Any]) -> bool:
        if not group.get("fused") or group["sigma"]:
            return False
        for p in group["params"]:
            if p.is_cpu or _is_sharded(p):
                return False
            # Told to skip its first step, a fused SGD keeps a momentum that it has never written.
            if group.get("momentum") and p.grad is not None and self._momentum(p) is None:
                return False
        return True

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
            room, [local] = self._neighbors.get(p), _local([p])
            if room is None or _layout(room) != _layout(local):
                self._neighbors[p] = torch.empty_like(local, memory_format=torch.preserve_format)
        return [self._neighbors[p] for p in params]

    @contextmanager
    def _coming_home(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._climbed = False
            self.zero_grad()
            raise
        finally:
            self._come_home()

    @torch.no_grad()
    def _come_home(self) -> None:
        # By our own list: a weight without a gradient in the second pass must come home too.
        for p, weights in self._away:
            if _is_sharded(p):
                _local([p])[0].copy_(weights)
            else:
                p.data = weights
        self._forget_other_weights([p for p, _ in self._away])
        for hook in self._hooks:
            hook.remove()
        gradients = [g for g in _local(self._gradients()) if g.numel() and not g.is_sparse]
        if self._mark is not None and gradients:
            smallest = min(gradients, key=Tensor.numel)
            smallest.add_(torch.as_tensor(self._mark, device=smallest.device))
        self._away, self._hooks, self._mark = [], [], None


# Hooks and schedulers' watch are in `descend`, so that every route has them once, and copies too.
SAM.step.hooked = SAM.step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


@contextmanager
def frozen_batchnorm_stats(model: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are; batches are still normalised by their own.

    The second pass of SAM runs at weights the model never keeps, so its statistics must not reach
    evaluation. Covers every batch norm, synchronised ones too, and instance norm,
    `num_batches_tracked` included; may be nested, and an exception leaves the model as it was.
    """
    tracking = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    # Instance norm writes into the buffers it has, whatever it is told: into copies.
    kept = [(m, dict(m._buffers)) for m in tracking if not isinstance(m, _BatchNorm)]
    for module, buffers in kept:
        module._buffers.update({k: b.clone() for k, b in buffers.items() if b is not None})
    for module in tracking:
        module.track_running_stats = not isinstance(module, _BatchNorm)
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for module, buffers in kept:
            module._buffers.update(buffers)


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
    if any(hasattr(p, "_fsdp_flattened") for p in group["params"]):
        raise ValueError(
            "FullyShardedDataParallel keeps these weights where SAM cannot move them: shard the "
            "model with torch.distributed.fsdp.fully_shard instead"
        )


def _is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor, of which this process holds a part."""
    return hasattr(tensor, "to_local")


def _local(tensors: Iterable[Any]) -> list[Tensor]:
    """What this process holds of each: the same memory, so that writing here writes there."""
    return [t.to_local() if _is_sharded(t) else t for t in tensors]


def _global_norm(tensors: list[Any]) -> Tensor:
    """The 2-norm of all tensors together, over all processes that hold a part of them."""
    by_place: dict[Any, list[Any]] = {}
    for t in tensors:
        place = (t.device_mesh, t.placements) if _is_sharded(t) else None
        by_place.setdefault(place, []).append(t)
    norms = []
    for place, found in by_place.items():
        norm = _local_norm(_local(found))
        if place is not None:
            norm = _sum_over_processes(norm.square(), *place).sqrt()
        norms.append(norm)
    return norms[0] if len(norms) == 1 else _stacked_norm(norms)


def _sum_over_processes(number: Tensor, mesh: Any, placements: tuple[Any, ...]) -> Tensor:
    for dim, placement in enumerate(placements):
        if not placement.is_replicate():
            torch.distributed.all_reduce(number, group=mesh.get_group(dim))
    return number


def _local_norm(tensors: list[Tensor]) -> Tensor:
    """In float32 at least: 100 halves of 6e4 overflow."""
    tensors = _numbers(tensors)
    has_double = any(t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if has_double else torch.float32
    if all(t.is_cpu and t.dtype == dtype for t in tensors):
        # BLAS reads twice as fast here as torch's own norm does.
        flat = [_flat(t) for t in tensors]
        return _stacked_norm([torch.dot(t, t).sqrt() for t in flat])
    return _stacked_norm(list(torch._foreach_norm(tensors, 2, dtype=dtype)))


def _stacked_norm(norms: list[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return norm


def _numbers(tensors: list[Tensor]) -> list[Tensor]:
    """Sparse and complex tensors as the real numbers that they hold."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    return [torch.view_as_real(t) if t.is_complex() else t for t in dense]


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _flat(tensor: Tensor) -> Tensor:
    """All elements in the order of memory, so that channels_last needs no copy."""
    if tensor.dim() == 4 and not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)
