"""A study's view of MLflow's run table: its columns, order and filter, and its charts.

MLflow keeps what its button "Save view" saves as a tag of the experiment, lists it under "Views",
and opens it by the tag's key. Of such a tag it reads a name, a time, and as `state` what its pages
(3.17) keep of a run table, deflated; what a page does not know, it leaves out.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

from samtune.study.study import Study
from samtune.tracking.runs import PARENT, STUDY_TAG, TRIAL_TAG
from samtune.words import short_names

TAG = "mlflow.sharedViewState."
SCORE = "score"  # what a trial counts by, as `study.select` says
GAIN = "gain_over_baseline"
STATE_TAG = "samtune.state"
SECTION = "study"
MOST_SCATTERS = 6
COLUMN_PIXELS = 150  # which shows the longest of the names


def view_tag(study_id: str) -> str:
    """The tag's name: one for each study of an experiment."""
    return f"{TAG}{study_id}"


def view(study: Study, name: str, time_ms: int) -> str:
    """The tag's value, which the same settings make the same.

    Args:
        name: what MLflow lists it under.
        time_ms: when it was made, as MLflow is to know it.
    """
    state = json.dumps(state_of(study), separators=(",", ":")).encode()
    deflated = "deflate;" + base64.b64encode(zlib.compress(state, 9)).decode()
    envelope = {"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": deflated}
    return json.dumps(envelope)


def trials_filter(study: Study) -> str:
    """MLflow's words for the study's trials, without its own run."""
    mine = f"tags.`{STUDY_TAG}` = '{study.folder.manifest.study_id}'"
    return f"{mine} AND tags.`{TRIAL_TAG}` != '{PARENT}'"


def state_of(study: Study) -> dict[str, Any]:
    """What MLflow's page keeps of a run table."""
    columns = [
        *(f"metrics.`{name}`" for name in (SCORE, GAIN)),
        *(f"params.`{path}`" for path in _searched(study)),
        f"tags.`{STATE_TAG}`",
        "attributes.`Duration`",
    ]
    return {
        "searchFilter": trials_filter(study),
        "orderByKey": f"metrics.`{SCORE}`",
        "orderByAsc": study.config.mode == "min",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_PIXELS),
        "runsHiddenMode": "SHOW_ALL",  # the scatter of ten trials says nothing
        "compareRunCharts": list(_charts(study)),
        "compareRunSections": [_section(SECTION, "The study")],
        # Sections are in this order, and MLflow adds its own, with the other metrics, below.
        "isAccordionReordered": True,
    }


def _searched(study: Study) -> list[str]:
    """The searched settings, rho first."""
    return sorted(study.config.search_space, key=lambda path: path != "sam.rho")


def _charts(study: Study) -> Iterator[dict[str, Any]]:
    searched, metric = _searched(study), study.metric
    names = short_names(searched)
    yield _chart("LINE", metric, metricKey=metric, selectedMetricKeys=[metric], xAxisKey="step")
    for path in searched[:MOST_SCATTERS]:
        yield _chart(
            "SCATTER",
            f"{SCORE} against {names[path]}",
            xaxis={"key": path, "type": "PARAM"},
            yaxis={"key": SCORE, "type": "METRIC"},
            runsCountToCompare=100,
        )
    if len(searched) > 1:
        yield _chart(
            "PARALLEL",
            "searched settings and score",
            selectedParams=searched,
            selectedMetrics=[SCORE],
            showAllRuns=False,
        )


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {
        "uuid": f"{SECTION}-{name}",
        "type": kind,
        "displayName": name,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 10,
        **settings,
    }


def _section(uuid: str, name: str) -> dict[str, Any]:
    return {"uuid": uuid, "name": name, "display": True, "isReordered": True, "deleted": False}
