"""`samtune show`: one study, or one trial of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from samtune.cli.console import new_console, print_damage, print_json, table, uncollected
from samtune.cli.options import AsJson, Storage, StudyName, TrialKey
from samtune.study import DEFAULT_STORAGE, Study, Trial, open_study
from samtune.words import describe, metric, number
from samtune.working_copy import address

MOST_ROWS = 200  # a table takes a millisecond a row, and nobody reads the rest


@uncollected()
def show(
    name: StudyName,
    trial: TrialKey = None,
    storage: Storage = DEFAULT_STORAGE,
    every: Annotated[
        bool, typer.Option("--all", help=f"List every trial, not the best {MOST_ROWS} alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a study's trials, or one trial's epochs."""
    study = open_study(name, storage)
    if as_json:
        print_json(_trial_json(study.trial(trial), epochs=True) if trial else study_json(study))
    elif trial:
        chosen = study.trial(trial)
        _print_trial(chosen)
        print_damage(new_console(), study.damage_of(chosen.key))
    else:
        _print_study(study, len(study.trials) if every else MOST_ROWS)


def _print_study(study: Study, most_rows: int) -> None:
    console = new_console()
    counts = ", ".join(f"{n} {state}" for state, n in study.counts().items())
    console.print(f"study {study.name}: {study.state}; {counts}")
    by = study.config.study.select
    precisions = dict.fromkeys(t.precision for t in study.trials if t.epochs)
    computed = f"; precision {', '.join(precisions)}" if precisions else ""
    console.print(f"{address(study.folder.root)}; trials count by their {by} epoch{computed}\n")
    rows = table(
        "trial",
        "state",
        ">epochs",
        f">last {study.metric}",
        f">best {study.metric}",
        ">at",
        "values",
    )
    best = study.best
    ranked = {trial.key for trial in study.ranking}
    in_order = study.ranking + [t for t in study.trials if t.key not in ranked]
    for trial in in_order[:most_rows]:
        top, last = trial.best_epoch, trial.last_epoch
        rows.add_row(
            trial.key + (" baseline" if trial.is_baseline else ""),
            trial.state,
            str(len(trial.epochs)),
            metric(last.metrics[trial.metric] if last else None),
            metric(top.metrics[trial.metric] if top else None),
            str(top.epoch) if top else "-",
            describe(trial.values),
            style="bold green" if trial is best else None,
        )
    console.print(rows)
    if (left := len(in_order) - most_rows) > 0:
        every = study.folder.command("show", "--all")
        console.print(f"and {left:,} trials more: `{every}` lists them", soft_wrap=True)
    from samtune.analysis import answer
    from samtune.cli.answer import print_answer, print_pareto, print_tuned

    print_tuned(console, study)
    print_pareto(console, study)
    print_answer(console, answer(study))
    print_damage(console, study.damage)
    for name, verdict in _verdicts(study).items():
        console.print(f"\n{name}: {verdict}", markup=False, soft_wrap=True)


def _verdicts(study: Study) -> dict[str, str]:
    """The verdict of each confirmation that has read the test split for this study, by its name."""
    from samtune.analysis.confirmations import confirmations

    return {name: found.verdict for name, found in confirmations(study).items()}


def _print_trial(trial: Trial) -> None:
    console = new_console()
    reason = f": {trial.outcome.reason}" if trial.outcome and trial.outcome.reason else ""
    console.print(f"{trial.key} {trial.state}{reason}", markup=False, soft_wrap=True)
    config = trial.config.model_dump(mode="json")
    config["training"]["precision"] = trial.precision
    for section, settings in config.items():
        shown = ", ".join(f"{key} {number(value)}" for key, value in settings.items())
        if section == "model" and trial.last_epoch and trial.last_epoch.parameters:
            shown += f"; {trial.last_epoch.parameters:,} parameters"
        console.print(f"  {section:10} {shown}")
    if trial.epochs:
        names = list(trial.epochs[0].metrics)
        rows = table(">epoch", *(f">{n}" for n in names), ">seconds")
        for entry in trial.epochs:
            style = "bold green" if entry is trial.best_epoch else None
            values = (number(entry.metrics.get(n, "-")) for n in names)
            rows.add_row(str(entry.epoch), *values, f"{entry.duration_s:.2f}", style=style)
        console.print(rows)
    if why := trial.folder.let_go():
        console.print(f"its weights were not kept: {why}")
    console.print(address(trial.folder.root))


def study_json(study: Study) -> dict[str, Any]:
    """What `show NAME --json` prints."""
    from samtune.analysis import answer
    from samtune.analysis.pareto import pareto_set

    best, found, pareto = study.best, answer(study), pareto_set(study)
    return {
        "name": study.name,
        "state": study.state,
        "folder": address(study.folder.root),
        "metric": study.metric,
        "metrics": study.config.study.metrics or [study.metric],
        "mode": study.config.mode,
        "select": study.config.study.select,
        "best_trial": best.key if best else None,
        "tuned_baseline": _tuned_json(study),
        "pareto": asdict(pareto) if pareto else None,
        "response": asdict(found.response) if found.response else None,
        "audit": asdict(found.audit) if found.audit else None,
        "warnings": [asdict(warning) for warning in found.warnings],
        "trials": [_trial_json(t, epochs=False) for t in study.trials],
        "damage": [str(damage) for damage in study.damage],
        "confirmations": _verdicts(study),
    }


def _tuned_json(study: Study) -> dict[str, Any] | None:
    """The tuned baseline, as far as it is; None where none was begun."""
    tuned = study.tuned_baseline
    if tuned is None:
        return None
    best = tuned.best
    return {
        "study": tuned.name,
        "state": tuned.state,
        "trials": len(tuned.trials),
        "best_trial": best.key if best else None,
        "score": best.value if best else None,
        "values": best.values if best else None,
    }


def _trial_json(trial: Trial, *, epochs: bool) -> dict[str, Any]:
    best, last = trial.best_epoch, trial.last_epoch
    shown: dict[str, Any] = {
        "trial": trial.key,
        "state": trial.state,
        "reason": trial.outcome.reason if trial.outcome else "",
        "baseline": trial.is_baseline,
        "values": trial.values,
        "precision": trial.precision,
        "parameters": last.parameters or None if last else None,
        "epochs_done": len(trial.epochs),
        "score": trial.value,
        "best": best and {"epoch": best.epoch, **best.metrics},
        "last": last and {"epoch": last.epoch, **last.metrics},
    }
    if epochs:
        shown["config"] = trial.config.model_dump(mode="json")
        shown["epochs"] = [{"epoch": e.epoch, **e.metrics} for e in trial.epochs]
    return shown
