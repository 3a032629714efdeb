"""What speaks against the answer, and what went wrong."""

from __future__ import annotations

from samtune.report.parts import Items, Part, Section, Subject
from samtune.words import some

MOST_REASONS = 20


def caveats(subject: Subject) -> Section:
    """Edges, warnings, failures and damage."""
    study = subject.study
    parts: list[Part] = []
    if found := [warning.sentence for warning in subject.answer.warnings]:
        parts.append(Items(found))
    elif study.config.confirm:
        parts.append("Nothing found.")
    else:
        parts.append(
            "Nothing found: no best value at the end of its range, enough trials, no setting "
            "without effect, a validation split that can show the gain."
        )
    if study.failed:
        parts.append(f"{len(study.failed)} trials failed:")
        shown = list(study.failures.items())[:MOST_REASONS]
        parts.append(Items([f"{some([t.key for t in trials])} {why}" for why, trials in shown]))
    if study.damage:
        parts.append("Damaged files:")
        parts.append(Items([str(damage) for damage in study.damage]))
    return Section("caveats", "What speaks against it", parts)
