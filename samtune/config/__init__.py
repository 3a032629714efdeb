"""What a study file may say, and the way from a file to a checked `StudyConfig`.

`trial`, `resources`, `space` and `schema` are what can be said; `yaml_reader`, `overrides` and
`study_file` read it; `checked_trial`, `optimizers` and `search_space` check what pydantic cannot;
`problems` collects every mistake, with its line.
"""

from samtune.config.base import NAME_PATTERN
from samtune.config.checked_trial import check_trial, record_of, trial_with
from samtune.config.resources import ResourcesConfig
from samtune.config.schema import SchedulerConfig, SearchConfig, StudyConfig
from samtune.config.space import Choice, Distribution, FloatRange, IntRange
from samtune.config.study_file import check_study, read_study, to_yaml
from samtune.config.trial import BEST, Named, SamConfig, TrainingConfig, TrialConfig, TrialRecord

__all__ = [
    "BEST",
    "NAME_PATTERN",
    "Choice",
    "Distribution",
    "FloatRange",
    "IntRange",
    "Named",
    "ResourcesConfig",
    "SamConfig",
    "SchedulerConfig",
    "SearchConfig",
    "StudyConfig",
    "TrainingConfig",
    "TrialConfig",
    "TrialRecord",
    "check_study",
    "check_trial",
    "read_study",
    "record_of",
    "to_yaml",
    "trial_with",
]
