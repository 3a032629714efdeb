"""A paragraph on how the study was made, for a paper's methods section."""

from __future__ import annotations

from typing import Any

from samtune.analysis.confirmations import confirmations
from samtune.analysis.response import SIGNIFICANT
from samtune.config.space import in_words
from samtune.report.answer import counted_by
from samtune.report.parts import Quote, Section, Subject, Table
from samtune.secrets import HIDDEN, is_secret
from samtune.study import Study
from samtune.words import count, metric, number

SAMPLERS = {
    "tpe": "a tree-structured Parzen estimator (Bergstra et al. 2011)",
    "random": "random search",
    "grid": "a full grid",
    "qmc": "quasi-random numbers",
    "cmaes": "CMA-ES (Hansen 2016)",
    "gp": "a Gaussian process",
}
SCHEDULERS = {
    "asha": "asynchronous successive halving (Li et al. 2020)",
    "hyperband": "Hyperband (Li et al. 2018)",
    "median": "the median stopping rule (Golovin et al. 2017)",
}
TOLD = {"epochs", "batch_size", "lr_schedule", "precision", "seed"}  # in words of their own
VARIANTS = {
    "sam": "Sharpness-Aware Minimization (SAM, Foret et al. 2021)",
    "asam": "adaptive SAM (ASAM, Kwon et al. 2021)",
    "asam_eta": "adaptive SAM (ASAM, Kwon et al. 2021)",
    "sam_on": "SAM on the norm layers alone (SAM-ON, Mueller et al. 2023)",
    "msam": "momentum SAM (MSAM, Becker et al. 2024)",
    "fsam": "friendly SAM (F-SAM, Li et al. 2024)",
}


def methods(subject: Subject) -> Section:
    """The paragraph, and the versions the numbers rest on."""
    study = subject.study
    versions = study.folder.manifest.versions
    rows = [[name, version] for name, version in versions.items()]
    return Section(
        "methods",
        "Methods, to paste into a paper",
        [Quote(paragraph(subject)), Table("What the study was begun with.", ["", "version"], rows)],
    )


def paragraph(subject: Subject) -> str:
    """How the study was made and what it came to, in sentences a paper can take over."""
    study = subject.study
    parts = [_training(study), _search(study), _comparison(study), _outcome(subject)]
    parts += [found.verdict for found in confirmations(study).values()]
    versions = study.folder.manifest.versions
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "samtune")
    parts.append(f"We used samtune {versions.get('samtune', '')} with {told}.")
    return " ".join(part for part in parts if part)


def _training(study: Study) -> str:
    trial = study.config.trial
    training = trial.training
    optimizer = "SGD" if trial.optimizer.name == "sgd" else trial.optimizer.name
    precisions = list(dict.fromkeys(t.precision for t in study.trials if t.epochs))
    variant = VARIANTS[trial.sam.variant]
    if "sam.variant" in study.config.search_space:
        variant = "Sharpness-Aware Minimization (SAM, Foret et al. 2021) in several variants"
    sections = {
        "model": trial.model.params,
        "dataset": trial.dataset.params,
        "optimizer": trial.optimizer.params,
        "sam": trial.sam.model_dump(exclude_defaults=True, exclude={"rho", "variant"}),
        "training": training.model_dump(exclude_defaults=True, exclude=TOLD),
    }
    told = {name: _params(study, name, params) for name, params in sections.items()}
    return (
        f"We trained {trial.model.name}{told['model']} on "
        f"{trial.dataset.name}{told['dataset']} with {variant}{told['sam']} around "
        f"{optimizer}{told['optimizer']}, for up to {training.epochs} epochs in "
        f"batches of {training.batch_size} with a {training.lr_schedule} learning-rate schedule"
        f"{told['training']}"
        f"{', in precision ' + ', '.join(precisions) if precisions else ''}."
    )


def _search(study: Study) -> str:
    config, search = study.config, study.config.study
    sampled = [t for t in study.trials if not t.is_baseline]
    if config.confirm:
        seeds = ", ".join(map(str, config.confirm.seeds))
        return f"The finalists of {config.confirm.study} were trained anew with the seeds {seeds}."
    space = "; ".join(
        f"{path} ({' or '.join(in_words(d) for d in distributions)})"
        for path, distributions in config.search_space.items()
    )
    text = f"{len(sampled)} trials"
    text += f" searched {space}" if space else " were run"
    text += f", proposed by {SAMPLERS[search.sampler]} with seed {search.seed}"
    trained = sorted({t.config.training.seed for t in study.trials})
    shown = ", ".join(map(str, trained[:10])) + (", ..." if len(trained) > 10 else "")
    if trained:
        text += f"; trials were trained with seed{'s' * (len(trained) != 1)} {shown}"
    text += "."
    if search.scheduler.name in SCHEDULERS:
        stopped = sum(t.state == "stopped" for t in study.trials)
        rule = SCHEDULERS[search.scheduler.name]
        text += f" {rule[0].upper()}{rule[1:]}"
        epochs = config.trial.training.epochs
        text += f" with a grace of {search.scheduler.grace(epochs)} epochs"
        if search.scheduler.name != "median":
            text += f" and a reduction factor of {search.scheduler.reduction_factor}"
        text += f" stopped {stopped} of them early."
    return text


def _comparison(study: Study) -> str:
    text = f"Trials were compared by {counted_by(study)}, on the validation split"
    text += ", beside a baseline with rho = 0" if study.baseline else ""
    if tuned := study.tuned_baseline:
        trials = count(len(tuned.trials), "trial")
        text += f" and the optimizer alone, tuned alike by {trials} of its own"
    return f"{text}; the test split was not used in the search."


def _outcome(subject: Subject) -> str:
    study, found = subject.study, subject.response
    best, baseline = study.best, study.baseline
    if best is None or study.config.confirm:
        return ""
    text = f"The best trial came to {metric(best.value)}"
    if baseline and baseline.value is not None:
        text += f", the baseline to {metric(baseline.value)}"
    text += " (one seed each)."
    if found and found.rho is not None and found.band and found.p_value is not None:
        low, high = found.band.plateau
        p_value = f"p = {found.p_value:.2g}" if found.p_value >= 0.001 else "p < 0.001"
        text += (
            f" The recommended rho of {found.rho:.2g} (plateau {low:.2g} to {high:.2g}) is the "
            "middle, on the log scale, of where a Gaussian process with a Matern-5/2 kernel over "
            f"the scores of {found.trials} trials ({found.stopped} of them stopped early) is "
            "within one standard error of its best; that the score depends on rho was tested by "
            f"a likelihood ratio ({p_value}, level {SIGNIFICANT})."
        )
    return text


def _params(study: Study, section: str, params: dict[str, Any]) -> str:
    """The settings of a section that were not searched, in brackets."""
    shown = [
        f"{key.replace('_', ' ')} {HIDDEN if is_secret(key) else number(value)}"
        for key, value in params.items()
        if f"{section}.{key}" not in study.config.search_space
    ]
    return f" ({', '.join(shown)})" if shown else ""
