"""What a study's trials say: pure functions over an opened `Study`.

`response` is the recommendation, `warnings` what speaks against an answer, `audit` whether the
trial scheduler stopped the right trials; `answer` is the three of them, found once. `pareto` is
what no trial beats in several objectives, `tuned` what tuning the optimizer alone came to.
`statistics`, `confirmed` and `verdict` are what repeated runs allow one to say (`samtune confirm`).
"""

from samtune.analysis.answer import Answer, answer
from samtune.analysis.audit import Audit, audit
from samtune.analysis.response import Band, Response, response
from samtune.analysis.warnings import StudyWarning, warnings_of

__all__ = [
    "Answer",
    "Audit",
    "Band",
    "Response",
    "StudyWarning",
    "answer",
    "audit",
    "response",
    "warnings_of",
]
