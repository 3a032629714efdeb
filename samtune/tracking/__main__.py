"""`python -m samtune.tracking ROOT PLUGIN_FOLDER [PLUGIN ...]`: what `following` starts."""

import sys
from pathlib import Path

from samtune.study.storage import storage_path
from samtune.tracking.process import follow

follow(storage_path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
