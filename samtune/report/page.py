"""One self-contained HTML page for a study: nothing is fetched when it is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup, escape

from samtune import analysis
from samtune.files import write_atomically
from samtune.report import answer, caveats, curves, methods, rho, settings, sharpness, spent
from samtune.report.parts import Maker, Section, Subject
from samtune.secrets import without_password
from samtune.study import Study
from samtune.study.manifest import REPORT_FILE

SECTIONS: tuple[Maker, ...] = (
    answer.answer,
    answer.confirmation,
    caveats.caveats,
    rho.against_rho,
    rho.beside_rho,
    curves.learning_curves,
    settings.importance,
    settings.parallel,
    curves.rungs,
    sharpness.sharpness,
    rho.divergence,
    spent.cost,
    spent.timeline,
    answer.all_trials,
    methods.methods,
)

OF_A_CONFIRMATION: tuple[Maker, ...] = (  # nothing is searched there
    answer.confirmation,
    caveats.caveats,
    curves.learning_curves,
    spent.cost,
    spent.timeline,
    answer.all_trials,
    methods.methods,
)

OF_A_BASELINE: tuple[Maker, ...] = (  # nothing is trained with SAM there
    answer.answer,
    caveats.caveats,
    curves.learning_curves,
    settings.importance,
    settings.parallel,
    curves.rungs,
    spent.cost,
    spent.timeline,
    answer.all_trials,
)


def write_report(study: Study, path: Path | None = None) -> Path:
    """Writes the page of a study, finished or running, and returns where.

    Args:
        path: the file; None is `report.html` in the study's folder.

    Raises:
        OSError: it cannot be written; an older page is as it was.
    """
    path = path or study.folder.root / REPORT_FILE
    subject = Subject(study, analysis.answer(study))
    kind, makers = "Study", SECTIONS
    if study.config.confirm:
        kind, makers = "Confirmation", OF_A_CONFIRMATION
    elif study.config.baseline_of:
        kind, makers = "Tuned baseline", OF_A_BASELINE
    sections = [make(subject) for make in makers]
    return write_page(path, f"{kind} {study.name}", study.state, sections)


def typeset(text: str) -> Markup:
    """A sentence as HTML: what it holds is text without passwords, `...` is code, +- one sign."""
    escaped = str(escape(without_password(text))).replace("+-", "±")
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))


def write_page(path: Path, title: str, state: str, sections: Sequence[Section]) -> Path:
    """Writes a page of these sections; plotly's code is in it where one of them has a plot."""
    import jinja2
    from plotly.offline import get_plotlyjs

    from samtune import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samtune.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    has_plots = any(
        not isinstance(part, str) and part.kind == "plot" for s in sections for part in s.parts
    )
    environment.filters["typeset"] = typeset
    text = environment.get_template("page.html").render(
        title=title,
        state=state,
        sections=sections,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        plotly=get_plotlyjs() if has_plots else "",
    )
    write_atomically(path, text.encode())
    return path
