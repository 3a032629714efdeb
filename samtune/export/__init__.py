"""The best checkpoint to take home, reloaded and measured before anyone is told it is done."""

from samtune.export.base import ExportedModel, Format
from samtune.export.best import Exported, export, model_of
from samtune.export.evaluation import Measured, evaluate_folder, evaluate_split
from samtune.export.formats import FORMATS, format_of, load_exported
from samtune.export.prediction import Prediction, predict

__all__ = [
    "FORMATS",
    "Exported",
    "ExportedModel",
    "Format",
    "Measured",
    "Prediction",
    "evaluate_folder",
    "evaluate_split",
    "export",
    "format_of",
    "load_exported",
    "model_of",
    "predict",
]
