"""What confirmations have found for a study, read from their folders."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from samtune.errors import SamtuneError
from samtune.files import read_json
from samtune.study import Study
from samtune.study.manifest import CONFIRM_FILE
from samtune.working_copy import current

if TYPE_CHECKING:
    from samtune.analysis.confirmed import Confirmed


def confirmations(study: Study) -> dict[str, Confirmed]:
    """Each confirmation that has read the test split for this study, by its name.

    One whose file is gone or damaged is left out: it can be made again from its journals.
    """
    names = [reading.confirmation for reading in study.folder.manifest.test_readings]
    confirm = study.config.confirm
    searched = confirm.study if confirm else study.name
    if not (every := dict.fromkeys([*names, *([study.name] if confirm else [])])):
        return {}
    from samtune.analysis.confirmed import Confirmed  # here, since it takes numpy

    found = {}
    for name in every:
        with contextlib.suppress(SamtuneError):
            found_by = current(study.folder.root.parent / name / CONFIRM_FILE)
            told = read_json(found_by, Confirmed)
            if told and told.study == searched:
                found[name] = told
    return found
