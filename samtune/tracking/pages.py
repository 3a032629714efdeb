"""Where the MLflow UI shows a study."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from samtune.errors import SamtuneError
from samtune.study.study import Study
from samtune.tracking.records import Shipped
from samtune.tracking.runs import STUDY_TAG
from samtune.tracking.store import Store, use_client_environment

COMPARED = 5


@dataclass(frozen=True)
class Pages:
    """Paths below the address of an MLflow UI.

    Attributes:
        runs: the study's trials, best score first.
        compare: its best trials side by side; empty where there are fewer than two.
    """

    runs: str
    compare: str


def pages_of(study: Study, store: Store) -> Pages:
    """The pages of a study.

    Raises:
        SamtuneError: MLflow cannot be asked, or holds nothing of the study.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    use_client_environment()
    try:
        experiment = MlflowClient(store.uri).get_experiment_by_name(study.name)
    except MlflowException as error:
        raise SamtuneError(f"MLflow at {store.address} cannot be asked: {error.message}") from error
    if experiment is None:
        raise SamtuneError(
            f"MLflow at {store.address} holds nothing of study {study.name!r} yet: send it with "
            f"`{study.folder.command('sync')}`"
        )
    view = {
        "searchFilter": f"tags.`{STUDY_TAG}` = '{study.folder.study_id}'",
        "orderByKey": "metrics.`score`",
        "orderByAsc": "false" if study.config.mode == "max" else "true",
    }
    shipped = Shipped.read(study.folder.root).trials
    best = [shipped[t.key].run_id for t in study.ranking[:COMPARED] if t.key in shipped]
    compared = {"runs": json.dumps(best), "experiments": json.dumps([experiment.experiment_id])}
    return Pages(
        runs=f"/#/experiments/{experiment.experiment_id}/runs?{urlencode(view, quote_via=quote)}",
        compare=f"/#/compare-runs?{urlencode(compared, quote_via=quote)}" if len(best) > 1 else "",
    )
