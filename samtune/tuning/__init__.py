"""How Ray Tune and Optuna drive the loop: the only package that knows Ray.

`space` and `sampler` speak Optuna, `scheduler` decides who goes on, `search` holds the three
together and knows the study folder, `trial` is the Ray worker, `nodes` knows where one can go,
`adapters` carry the decisions to Ray Tune, and `run` starts it all. `baseline` and `confirm` make
studies of one that is done.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samtune.tuning.run import resume_study, run_study

__all__ = ["resume_study", "run_study"]

# In a notebook Ray and Optuna each ask for ipywidgets, with which nothing is drawn here.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", "IProgress not found")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'samtune.tuning' has no attribute {name!r}")
    from samtune.tuning import run

    return getattr(run, name)
