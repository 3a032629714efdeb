"""The training loop and what belongs to it; it knows no Ray, no MLflow and no study.

`state` sets a trial up, `loop` trains it, `schedule` sets its learning rate, `averaging` takes the
mean of its weights, `precision` (and `amx`) say in which numbers, `checkpoint` writes it down,
`selfcheck` tries SAM on a model. `processes` trains it in several, of which each is one of the
`ranks`, with `batch_norm` over all of them.
"""

from samtune.training.loop import EpochResult, evaluate, sam_step, train
from samtune.training.schedule import lr_factor
from samtune.training.state import TrainingState, new_model, new_optimizer, set_up, trial_task

__all__ = [
    "EpochResult",
    "TrainingState",
    "evaluate",
    "lr_factor",
    "new_model",
    "new_optimizer",
    "sam_step",
    "set_up",
    "train",
    "trial_task",
]
