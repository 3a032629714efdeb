"""What a study's trials come to, found once: `answer` in the study's folder keeps it.

Fitting surfaces to a thousand trials takes seconds, and so does importing what fits them. The file
is derived: it holds for the very files that it was made of, and for the rules that made it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydantic import TypeAdapter

from samtune.analysis.results import Answer
from samtune.study import Study
from samtune.study.derived import read_derived, write_derived
from samtune.study.index import stamp_of

ANSWER_FILE = "answer"
RULES = Path(__file__).parent


_answers = TypeAdapter(Answer)


def answer(study: Study) -> Answer:
    """What the study's trials come to; of one that runs, so far."""
    if kept := kept_answer(study):
        return kept
    from samtune.analysis.audit import audit  # here, so that a kept answer is read without numpy
    from samtune.analysis.response import response
    from samtune.analysis.warnings import warnings_of

    path, source = study.folder.root / ANSWER_FILE, _source(study)
    found = Answer(response(study), audit(study), warnings_of(study))
    if source:
        write_derived(path, source, _answers.dump_json(found))
    return found


def kept_answer(study: Study) -> Answer | None:
    """The same if it was found before, which takes no time to speak of."""
    path, source = study.folder.root / ANSWER_FILE, _source(study)
    if source and (content := read_derived(path, source)):
        with contextlib.suppress(ValueError):  # whole, and made by other hands
            return _answers.validate_json(content)
    return None


def _source(study: Study) -> str:
    """What an answer is made of; empty where it would not hold for long."""
    tuned = study.tuned_baseline
    sources = [study.source, *([tuned.source] if tuned else [])]
    rules = stamp_of(str(RULES), tuple(sorted(os.listdir(RULES))))
    return f"{', '.join(sources)}, rules {rules}" if all(sources) else ""
