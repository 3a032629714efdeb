"""`python -m samtune.report FOLDER`: a study's page, as `study.report` asks for it."""

import sys

from samtune.report.page import write_report
from samtune.study import open_study
from samtune.study.storage import storage_path

root = storage_path(sys.argv[1])
write_report(open_study(root.name, root.parent))
