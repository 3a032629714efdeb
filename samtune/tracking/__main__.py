"""`python -m samtune.tracking ROOT PLUGIN_FOLDER [PLUGIN ...]`: what `following` starts."""

import sys
from pathlib import Path

from samtune.registry import load_plugins
from samtune.tracking.process import follow

load_plugins(sys.argv[3:], Path(sys.argv[2]))  # they may hold the best trial's model
follow(Path(sys.argv[1]))
