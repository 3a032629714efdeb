"""`python -m samtune.report FOLDER`: a study's page, as `study.report` asks for it."""

import sys
from pathlib import Path

from samtune.report.page import write_report
from samtune.study import Study, StudyFolder

folder = StudyFolder(Path(sys.argv[1]))
write_report(Study(folder, folder.config()))
