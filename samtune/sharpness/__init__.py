"""How flat the loss is around a trial's weights, beside those of its baseline.

`rise` is SAM's own measure, the rise of the loss within rho; `curvature` the Hessian's largest
eigenvalues and its trace; `landscape` the loss along random directions. Each knows a model's loss
on fixed images (`loss`) and nothing of studies. `measure` puts them together for trials of a study,
and `result` is what they come to: `sharpness.json` in the study's folder, read without torch.
"""

from samtune.sharpness.result import (
    Curvature,
    Landscape,
    Question,
    Rise,
    Sharpness,
    TrialSharpness,
    Wanted,
    outdated,
    question_of,
    read_sharpness,
)

__all__ = [
    "Curvature",
    "Landscape",
    "Question",
    "Rise",
    "Sharpness",
    "TrialSharpness",
    "Wanted",
    "outdated",
    "question_of",
    "read_sharpness",
]
