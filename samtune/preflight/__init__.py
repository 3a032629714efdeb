"""What can be known before any trial starts: that every trial can run, and what it will cost.

A range that allows a depth no architecture has, a data set that is not there, a folder that cannot
be written: each is found in seconds here and not in trial 37.
"""

from samtune.preflight.models import Corner
from samtune.preflight.study import Preview, expected_rungs, free_space, gradients_per_step, preview
from samtune.preflight.warnings import warnings_of

__all__ = [
    "Corner",
    "Preview",
    "expected_rungs",
    "free_space",
    "gradients_per_step",
    "preview",
    "warnings_of",
]
