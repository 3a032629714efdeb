"""The best checkpoint to take home, reloaded and measured before anyone is told it is done."""

from samtune.export.best import Exported, export
from samtune.export.formats import SUFFIXES, Format, format_of, load_exported, packed

__all__ = [
    "SUFFIXES",
    "Exported",
    "Format",
    "export",
    "format_of",
    "load_exported",
    "packed",
]
