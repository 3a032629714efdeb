"""What a study's trials say: pure functions over an opened `Study`.

`response` is the recommendation, `warnings` what speaks against an answer, `audit` whether the
trial scheduler stopped the right trials; `answer` is the three of them, found once, as `results`.
`pareto` is what no trial beats in several objectives, `tuned` what tuning the optimizer alone came
to. `statistics`, `confirmed` and `verdict` are what repeated runs allow one to say (`samtune
confirm`). The package itself takes no time to import: what computes is imported by who computes.
"""

from samtune.analysis.answer import answer
from samtune.analysis.results import Answer, Audit, Band, Response, StudyWarning

__all__ = ["Answer", "Audit", "Band", "Response", "StudyWarning", "answer"]
