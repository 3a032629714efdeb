"""A study in a bucket reaches MLflow as any other does."""

from __future__ import annotations

import mlflow

from samtune import tracking
from samtune.study.folder import StudyFolder
from samtune.study.storage import storage_path
from tests.s3_server import S3
from tests.synthetic import Make
from tests.tracking.conftest import runs_of, write_study


def test_it_is_followed_by_a_process_whose_copy_begins_empty(
    s3: S3, study_config: Make, uri: str
) -> None:
    storage = storage_path(f"s3://{s3.new_bucket()}/studies")
    config = study_config(
        ("trials: 4", "trials: 2, baseline: false, register_model: false"), (", report: false", "")
    )
    folder = write_study(StudyFolder.create(storage, config), {"t0001": 3, "t0002": 3})
    with tracking.following(folder.root):
        pass
    assert not tracking.wait_until_shipped(folder.root).missing
    runs = runs_of(uri)
    assert set(runs) == {"study", "t0001", "t0002"}
    assert runs["t0001"].data.metrics["val_accuracy"] == 0.3
    assert runs["t0001"].info.status == "FINISHED"
    artifacts = runs["study"].info.artifact_uri
    assert "t0001" in mlflow.artifacts.load_text(f"{artifacts}/report.html")
