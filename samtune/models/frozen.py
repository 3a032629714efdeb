"""Parts of a model that do not train."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, Literal, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from samtune.errors import did_you_mean

Freeze = Literal["backbone"] | Sequence[str]


def freeze(model: nn.Module, parts: Freeze, head: Collection[str]) -> None:
    """Takes parts of a model out of training.

    Their parameters get no gradient: SAM does not climb with them, no optimizer steps or decays
    them. Their batch norms normalise by their running statistics, which no pass moves any more;
    dropout among them stays on.

    Args:
        parts: what to freeze, by the names of modules or parameters; `backbone` is all but `head`.
        head: the names of the parameters that give the logits.

    Raises:
        ValueError: the model has no such part, or nothing is left to train.
    """
    if not parts:
        return
    names = [name for name, _ in model.named_parameters()]
    is_frozen = _outside(head) if parts == "backbone" else _inside(parts)
    for part in () if parts == "backbone" else parts:
        if not any(map(_inside([part]), names)):
            raise ValueError(_no_such_part(part, names))
    if all(map(is_frozen, names)):
        raise ValueError("freeze leaves nothing to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not is_frozen(name))
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and is_frozen(path):
            kind: Any = type(module)
            module.__class__ = _frozen(kind)
            module.eval()


def _outside(head: Collection[str]) -> Callable[[str], bool]:
    return lambda name: name not in head


def _inside(parts: Sequence[str]) -> Callable[[str], bool]:
    return lambda name: any(name == part or name.startswith(f"{part}.") for part in parts)


def _no_such_part(part: str, names: Sequence[str]) -> str:
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    paths = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, 5)}
    return (
        f"freeze: the model has no part {part!r}.{did_you_mean(part, sorted(paths))} Its parts: "
        f"{', '.join(tops)}; parts of these by their dotted names"
    )


class _StaysInEvaluation:
    """A batch norm that `model.train()` does not reach."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - torch's signature
        """Evaluation mode, whatever is asked for."""
        return super().train(False)  # type: ignore[misc, no-any-return]  # mixed into modules

    def reset_running_stats(self) -> None:
        """Leaves them: they are all that a frozen batch norm has."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time, so that pickle would not find it by its name.
        return _without_state, (type(self).__bases__[1],), self.__dict__


@cache
def _frozen(kind: Any) -> Any:
    # A class and not a hook: whoever asks `module.training` gets the truth.
    return type(f"Frozen{kind.__name__}", (_StaysInEvaluation, kind), {})


def _without_state(kind: Any) -> Any:
    frozen = _frozen(kind)
    return frozen.__new__(frozen)
