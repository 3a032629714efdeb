"""What is said before a study starts and after it ends."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from samtune.analysis import answer
from samtune.cli.answer import print_answer, print_pareto, print_tuned
from samtune.cli.console import say, table
from samtune.config.baseline import baseline_name
from samtune.config.resources import ResourcesConfig
from samtune.config.schema import StudyConfig
from samtune.config.space import in_words
from samtune.preflight import Preview, gradients_per_step, warnings_of
from samtune.study import Study, Trial
from samtune.training.selfcheck import Finding
from samtune.words import big, describe, duration, metric, size, some


def print_preview(console: Console, preview: Preview) -> None:
    """The space, the models at its corners, the scheduler's rungs and the cost."""
    config = preview.config
    training = config.trial.training
    console.print(f"[bold]study {config.name}[/]: {config.study.metric} ({config.mode})")
    console.print(f"  data       {_data_in_words(preview)}", markup=False)
    for i, (path, distributions) in enumerate(config.search_space.items()):
        for distribution in distributions:
            console.print(f"  {'space' if not i else '':10} {path}: {in_words(distribution)}")
    for i, corner in enumerate(preview.corners):
        which = describe(corner.values) or config.trial.model.name
        timed = f", {corner.step_s * 1000:.0f} ms a SAM step" if corner.step_s else ""
        console.print(
            f"  {'models' if not i else '':10} {which}: "
            f"{big(corner.parameters)} parameters, {big(corner.macs)} multiply-adds{timed}"
        )
    how = f"{config.wanted_trials} trials by {config.study.sampler}"
    how += ", and a baseline with rho = 0" if config.study.has_baseline else ""
    if config.study.baseline == "tuned":
        how += f", then tuned by as many in {baseline_name(config.name)}"
    console.print(f"  trials     {how}; up to {training.epochs} epochs{_steps(preview)}")
    if config.study.resources != ResourcesConfig():
        console.print(f"  a trial    {config.study.resources}", markup=False)
    console.print(f"  precision  {_precision(preview)}")
    if preview.rungs:
        reached = ", ".join(f"{trials} reach epoch {epoch}" for epoch, trials in preview.rungs)
        console.print(f"  asha       about {reached}")
    cost = f"about {preview.epochs} epochs in all"
    if preview.data:
        cost += f", {big(preview.gradient_evaluations)} gradient evaluations"
    if preview.corners and all(corner.step_s for corner in preview.corners):
        steps = preview.steps_per_epoch * preview.gradients / gradients_per_step(config)
        ends = [(corner.step_s or 0) * steps for corner in preview.corners]
        cost += f", {duration(min(ends))} to {duration(max(ends))} of one trial slot"
    disk = f"{size(preview.disk_free_bytes)} free on disk"
    if preview.corners:
        disk = (
            f"{size(preview.disk_bytes)}, and {size(preview.disk_bytes_at_work)} more while a "
            f"trial runs, of {disk}"
        )
    console.print(f"  cost       {cost}; {disk}")
    for model, found in preview.self_checks.items():
        console.print(f"  self-check {_self_check_in_words(model, found)}")
    if preview.disk_bytes + preview.disk_bytes_at_work > preview.disk_free_bytes:
        console.print("[yellow]  note       the disk is too small for all that[/]")
    for sentence in warnings_of(config):
        console.print(f"[yellow]  note       {escape(sentence)}[/]")


def print_warm_start(console: Console, config: StudyConfig, storage: Path) -> None:
    """How many trials of which other studies the sampler knows of from its start."""
    from samtune.tuning.warm_start import past_studies

    for past in past_studies(config, storage):
        console.print(f"  warm start {past} lie in this space", markup=False)


def _data_in_words(preview: Preview) -> str:
    name, data = preview.config.trial.dataset.name, preview.data
    if data is None:
        fetched = "; `samtune run` fetches it" if preview.fetchable else ""
        return f"{name} is not here yet, so models, time and disk are not previewed{fetched}"
    height, width = data.image_size
    return (
        f"{name}, {height}x{width}x{data.in_channels}, {data.num_classes} classes: "
        f"{len(data.train):,} to train, {len(data.val):,} to validate"
    )


def _self_check_in_words(model: str, found: list[Finding] | str) -> str:
    if isinstance(found, str):
        return f"[yellow]not tried on {model}: {escape(found)}[/]"
    broken = [f"{f.claim} ({f.detail})" for f in found if not f.holds]
    if broken:
        return f"[yellow]on {model} this does not hold: {'; '.join(broken)}[/]"
    return f"passed: all {len(found)} promises of SAM hold on {model}"


def print_summary(console: Console, study: Study) -> None:
    """The best trials, what SAM gained, what speaks against it, what failed, what to do next."""
    console.print(f"\n[bold]study {study.name}[/]: {study.tally}")
    if study.budget.spent:
        console.print(f"{study.budget.spent}, so no trial is begun any more.", markup=False)
    _print_ranking(console, study)
    _print_gain(console, study)
    print_tuned(console, study)
    print_pareto(console, study)
    print_answer(console, answer(study))
    _print_failures(console, study)
    if study.state == "interrupted":
        console.print(f"\nnot done: go on with {study.folder.command('resume')}", soft_wrap=True)
    command = study.folder.command
    first = []
    if study.best and not study.best.is_baseline and not study.config.belongs_to:
        first = [command("confirm")]
    others = [command("report"), command("ui"), command("export", "-o best.pt")]
    console.print("\nnext:  " + "\n       ".join([*first, ", ".join(others)]), soft_wrap=True)


def _print_failures(console: Console, study: Study) -> None:
    """Each reason once, with the trials that it ended; and how to try them again."""
    for reason, trials in study.failures.items():
        shown = some([trial.key for trial in trials])
        console.print(f"{shown} {reason}", style="red", markup=False, soft_wrap=True)
        console.print(f"  see {study.folder.command('logs', trials[0].key)}", soft_wrap=True)
    if study.failed:
        again = study.folder.command("resume", "--retry-failed")
        console.print(f"  try them again with {again}", soft_wrap=True)


def _print_ranking(console: Console, study: Study) -> None:
    rows = table("", "trial", f">last {study.metric}", f">best {study.metric}", ">at", "values")
    for place, trial in enumerate(study.ranking[:5], 1):
        rows.add_row(f"{place}.", *_row(trial))
    baseline = study.baseline
    if baseline and baseline.epochs and baseline not in study.ranking[:5]:
        rows.add_row("", *_row(baseline))
    console.print(rows)


def _row(trial: Trial) -> list[str]:
    last, best = trial.last_epoch, trial.best_epoch
    name = f"{trial.key} baseline" if trial.is_baseline else trial.key
    return [
        name,
        metric(last.metrics[trial.metric] if last else None),
        metric(best.metrics[trial.metric] if best else None),
        f"epoch {best.epoch}" if best else "-",
        describe(trial.values),
    ]


def _print_gain(console: Console, study: Study) -> None:
    best, baseline = study.best, study.baseline
    if baseline and baseline in study.failed:
        console.print(
            "[yellow]The baseline failed, so what SAM gains cannot be told: nothing can be "
            "compared.[/]"
        )
        return
    if not best or not baseline or best.value is None or baseline.value is None:
        return
    by = "best" if study.config.study.select == "best" else "last"
    alone = f"{study.config.trial.optimizer.name} alone"
    if best.is_baseline:
        say(
            console,
            f"No trial with SAM came above {alone} (rho = 0, as under trial:): {by} {study.metric} "
            f"{metric(baseline.value)}, of one seed.",
        )
        return
    found = Text.assemble(
        (f"Best: {best.key}, rho {best.config.sam.rho:.3g}", "bold"),
        f", {by} {study.metric} ",
        (metric(best.value), "bold"),
        f"; {alone} has {metric(baseline.value)}{_at_other_settings(best, baseline)}. Each is of "
        "one seed, and the best was chosen by this number: what SAM gains, `samtune confirm` "
        "finds out.",
    )
    say(console, found)


def _at_other_settings(best: Trial, baseline: Trial) -> str:
    """In what, besides SAM, the two differ; empty where nothing does."""
    differs = {}
    for path, value in best.values.items():
        own = baseline.config.value_of(path)
        if not path.startswith("sam.") and own != value:
            differs[path] = own
    found = [f"with {describe(differs)}"] if differs else []
    if len(best.epochs) != len(baseline.epochs):
        found.append(f"after {len(baseline.epochs)} epochs, not {len(best.epochs)}")
    return f" {', '.join(found)}" if found else ""


def _steps(preview: Preview) -> str:
    config: StudyConfig = preview.config
    batches = f"batches of {config.trial.training.batch_size}"
    return f" of {preview.steps_per_epoch} steps, {batches}" if preview.data else f" in {batches}"


def _precision(preview: Preview) -> str:
    training = preview.config.trial.training
    shown = training.precision_in_words([preview.precision])
    return f"{shown} on this machine" if training.precision == "auto" else shown
