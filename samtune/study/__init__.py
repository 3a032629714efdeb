"""The folder of a study: layout, journal, lock, and reading what is in it.

What the workers append there is the truth. The Optuna study, the scheduler's rungs and the MLflow
runs are derived from it and can be rebuilt from it.
"""

from samtune.study.folder import DEFAULT_STORAGE, StudyFolder, study_names
from samtune.study.renaming import open_folder
from samtune.study.study import Study, Trial, open_study
from samtune.study.trial_folder import Outcome, TrialFolder

__all__ = [
    "DEFAULT_STORAGE",
    "Outcome",
    "Study",
    "StudyFolder",
    "Trial",
    "TrialFolder",
    "open_folder",
    "open_study",
    "study_names",
]
