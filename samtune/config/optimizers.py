"""The optimizers of `torch.optim` by name, their settings, and whether SAM can step with them."""

from __future__ import annotations

import functools
from typing import Any

from samtune.config.problems import Problems
from samtune.config.trial import Named, SamConfig
from samtune.config.yaml_reader import KeyPath
from samtune.errors import UnknownNameError
from samtune.registry import Entry


def optimizer_class(name: str) -> Any:
    """The `torch.optim` class of this name, in any capitals.

    Raises:
        UnknownNameError: there is none, or its steps cannot be SAM's.
    """
    classes = _classes()
    if name.lower() not in classes:
        raise UnknownNameError("optimizer", name, classes)
    return classes[name.lower()]


def optimizer_names() -> list[str]:
    """Those that SAM can step with."""
    return sorted(_classes())


def _classes() -> dict[str, Any]:
    import torch

    # LBFGS evaluates the loss several times a step by itself; SparseAdam wants sparse gradients;
    # Adadelta has a rho of its own, which SAM's would replace.
    return {
        key.lower(): cls
        for key, cls in vars(torch.optim).items()
        if isinstance(cls, type)
        and issubclass(cls, torch.optim.Optimizer)
        and key not in ("Optimizer", "LBFGS", "SparseAdam", "Adadelta")
    }


def check_optimizer(raw: Any, path: KeyPath, problems: Problems) -> None:
    """Notes what is wrong with the settings of an optimizer."""
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return
    try:
        entry = optimizer_entry(raw["name"])
    except UnknownNameError as error:
        problems.add((*path, "name"), str(error))
        return
    params = {key: value for key, value in raw.items() if key != "name"}
    problems.validate(entry.schema, params, path)
    lr = params.get("lr")
    if isinstance(lr, int | float) and lr <= 0:
        problems.add((*path, "lr"), f"must be a number above 0, got {lr}.")


@functools.cache
def optimizer_entry(name: str) -> Entry:
    """A `torch.optim` class, whose signature is its schema as a model's is."""
    return Entry(name, optimizer_class(name), None, frozenset({"params"}))


def cannot_step(named: Named, sam: SamConfig) -> str:
    """What torch or SAM says against a trial's optimizer, from two steps with it.

    Much is refused in a step only: wrong types, weights of a shape that Muon cannot take, numbers
    that overflow.
    """
    import torch

    from samtune.sam import SAM

    cls = optimizer_class(named.name)
    # A convolution's weights and a bias: what about every model has.
    weights = [torch.nn.Parameter(torch.ones(2, 2, 1, 1)), torch.nn.Parameter(torch.ones(2))]
    try:
        optimizer = SAM(weights, cls, **named.params)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.5)
            optimizer.descend()
    except Exception as error:  # noqa: BLE001 - whatever torch says against these values
        reason = " ".join(str(error).split()).rstrip(".")
        return f"torch.optim.{cls.__name__} refuses this: {reason}"
    if not all(weight.isfinite().all() for weight in weights):
        found = f"torch.optim.{cls.__name__} takes the weights to infinity in two steps"
        return f"{found}; take smaller values"
    if sam.variant == "msam":
        try:
            with optimizer.at_momentum_neighbor():
                pass
        except ValueError as error:
            return f"{error}: set optimizer.momentum above 0, or take another sam.variant"
    return ""
