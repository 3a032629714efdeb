"""What MLflow shows above a study's runs: its answer in Markdown, with the commands that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from samtune.words import some

if TYPE_CHECKING:
    from samtune.export.about import About

TOP = 5


def description(study: Study, *links: str) -> str:
    """The best trials, what speaks for and against the answer, and what to type next.

    Args:
        links: what stands below the best trial, in Markdown.
    """
    parts = (_best(study), *links, _top(study), _pareto(study), _said(study), _next(study))
    return "\n\n".join(part for part in parts if part)


def description_of_model(said: About, trial: Trial) -> str:
    """How the best trial's model came to be, what it is worth, and how to use it."""
    height, width, channels = said.input.height, said.input.width, said.input.channels
    of_classes = f"{said.num_classes} classes"
    if said.classes:
        of_classes += f" ({some(said.classes, 10)})"
    return "\n\n".join(
        (
            f"`{said.model['name']}`, the best of study {said.study}: trial {said.trial}, "
            f"{in_short(trial.values)}, after epoch {said.epoch}. "
            f"**{said.metric} {said.metrics[said.metric]:.4f}** on the validation split.",
            f"It takes float32 images (B, {channels}, {height}, {width}), {said.input.in_words}, "
            f"with pixels from 0 to 1, and normalises them itself. It gives scores for "
            f"{of_classes}; the task is {said.task}.",
            "    import mlflow\n"
            f'    model = mlflow.pyfunc.load_model("models:/{said.study}@champion")\n'
            "    scores = model.predict(images)",
            "The other validation metrics, mean and standard deviation are its tags; every "
            "setting is in its metadata under `samtune`.",
        )
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
