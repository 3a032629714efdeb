"""What a study's trials say: pure functions over an opened `Study`, which change nothing.

`response` is the recommendation, `warnings` what speaks against an answer, `audit` whether the
trial scheduler stopped the right trials.
"""

from samtune.analysis.response import Band, Response, response

__all__ = ["Band", "Response", "response"]
