"""Where the MLflow UI shows a study."""

from __future__ import annotations

from dataclasses import dataclass

from samtune.errors import SamtuneError
from samtune.study.study import Study
from samtune.tracking import links
from samtune.tracking.records import Shipped
from samtune.tracking.store import Store, use_client_environment
from samtune.tracking.view import view_tag

COMPARED = 5


@dataclass(frozen=True)
class Pages:
    """Paths below the address of an MLflow UI.

    Attributes:
        charts: the study's learning curves, its score against what it searched, beside its trials.
        trials: a table of them, best score first.
        compare: its best trials side by side; empty where there are fewer than two.
        study: its own run, with what it found.
    """

    charts: str
    trials: str
    compare: str
    study: str


def pages_of(study: Study, store: Store) -> Pages:
    """The pages of a study.

    Raises:
        SamtuneError: MLflow cannot be asked, or does not hold the study's view.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    use_client_environment()
    try:
        experiment = MlflowClient(store.uri).get_experiment_by_name(study.name)
    except MlflowException as error:
        raise SamtuneError(f"MLflow at {store.address} cannot be asked: {error.message}") from error
    if experiment is None or view_tag(study.folder.manifest.study_id) not in experiment.tags:
        raise SamtuneError(
            f"MLflow at {store.address} holds nothing of study {study.name!r} yet: send it with "
            f"`{study.folder.command('sync')}`"
        )
    shipped = Shipped.read(study.folder.root)
    known = shipped.trials
    best = [known[t.key].run_id for t in study.ranking[:COMPARED] if t.key in known]
    experiment_id = experiment.experiment_id
    return Pages(
        charts=f"/{links.charts_link(experiment_id, study)}",
        trials=f"/{links.trials_link(experiment_id, study)}",
        compare=f"/{links.compare_link(experiment_id, best)}" if len(best) > 1 else "",
        study=f"/{links.run_link(experiment_id, shipped.parent.run_id)}",
    )
