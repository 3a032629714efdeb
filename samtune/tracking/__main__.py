"""`python -m samtune.tracking ROOT GIVEN PLUGIN_FOLDER [PLUGIN ...]`: what `following` starts.

GIVEN is a file descriptor.
"""

import sys
from pathlib import Path

from samtune.study.storage import storage_path
from samtune.tracking.process import follow

follow(storage_path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
