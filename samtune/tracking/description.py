"""What MLflow shows above a study's runs: its answer in Markdown, with the commands that follow."""

from __future__ import annotations

from samtune.analysis import answer
from samtune.analysis.pareto import (
    pareto_columns,
    pareto_in_words,
    pareto_rows,
    pareto_set,
)
from samtune.analysis.tuned import tuned_in_words
from samtune.study.study import Study, Trial
from samtune.tracking.fields import in_short

TOP = 5


def description(study: Study) -> str:
    """The best trials, what speaks for and against the answer, and what to type next."""
    return "\n\n".join(
        part
        for part in (_best(study), _top(study), _pareto(study), _said(study), _next(study))
        if part
    )


def _best(study: Study) -> str:
    best, baseline = study.best, study.baseline
    if best is None or best.value is None:
        return f"{study.tally}. No trial can be used."
    by = f"{study.metric} at its {study.config.study.select} epoch"
    line = f"**{best.key}** has the best score, {best.value:.4f} ({by})"
    if baseline and baseline.value is not None and not best.is_baseline:
        alone = f"{study.config.trial.optimizer.name} alone"
        line += f"; {alone} has {baseline.value:.4f}"
    return f"{line}. {study.tally}."


def _top(study: Study) -> str:
    rows = [_row(trial) for trial in study.ranking[:TOP]]
    head = "| trial | score | epochs | settings |\n|---|---|---|---|\n"
    return head + "\n".join(rows) if rows else ""


def _row(trial: Trial) -> str:
    name = f"{trial.key} (baseline)" if trial.is_baseline else trial.key
    settings = in_short(trial.values).replace("|", "\\|")
    return f"| {name} | {trial.value:.4f} | {len(trial.epochs)} | {settings} |"


def _pareto(study: Study) -> str:
    found = pareto_set(study)
    if found is None:
        return ""
    head = [name.removeprefix(">") for name in pareto_columns(found)]
    lines = [head, ["---"] * len(head), *pareto_rows(study, found)]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return f"{pareto_in_words(found)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _said(study: Study) -> str:
    found = answer(study)
    sentences = [tuned_in_words(study), found.response.sentence if found.response else ""]
    sentences += [warning.sentence for warning in found.warnings]
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def _next(study: Study) -> str:
    commands = [study.folder.command("show"), study.folder.command("export", "-o best.pt")]
    if study.left:
        commands.insert(0, study.folder.command("resume"))
    elif not study.config.belongs_to:
        commands.insert(0, study.folder.command("confirm"))
    return "\n".join(f"    {command}" for command in commands)
