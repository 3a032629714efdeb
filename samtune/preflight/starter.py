"""A study file to begin with: valid, commented, with ranges that suit model and variant."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from samtune.config.overrides import with_overrides
from samtune.config.trial import SamConfig
from samtune.config.yaml_reader import Document
from samtune.preflight.warnings import USUAL_RHO
from samtune.registry import DATASETS, MODELS
from samtune.tasks import study_metrics

SECTIONS = ("model", "dataset", "optimizer", "sam", "training")
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ADAM = {"name": "adam", "lr": 1e-3}
TRAINING = {"epochs": 30, "batch_size": 128, "lr_schedule": "cosine", "seed": 0}
TEMPLATE = """\
# Which rho makes SAM pay off for {model} on {dataset}, and by how much?
#
#   samtune check {file}      every mistake at once, or a preview; starts nothing
#   samtune run {file}        search, record, and say which rho to take
#   samtune confirm {name}    what SAM gains, with fresh seeds, on test images
name: {name}

trial:                                    # one complete run; `samtune train` runs just this
{trial}

# `samtune models {model}` and `samtune datasets {dataset}` list what else can be set above.

search_space:                             # what the sampler chooses, by path into `trial`
  sam.rho: {{float: [{rho_low:g}, {rho_high:g}], log: true}}     # where {variant} is mostly best
  optimizer.lr: {{float: [{lr_low}, {lr_high}], log: true}}
{more}
study:
  metric: {metric}
  select: best                            # or last: with wrong labels the best epoch flatters
  trials: 24
  sampler: tpe
  baseline: true                          # or tuned: the optimizer alone by as many trials, too
  scheduler: {{name: asha}}                 # stops weak trials early
  resources: {{cpus: 1, gpus: auto}}        # of one trial; fractions of a GPU share it
"""


def starter(
    model: str, dataset: str, *, variant: str = "sam", file: str, settings: Sequence[str] = ()
) -> str:
    """The text of a study file; it is not checked here.

    Args:
        file: what it will be called, for the commands in it and for the study's name.
        settings: `KEY=VALUE` into `trial:`, as in `dataset.root=photos`.

    Raises:
        UnknownNameError: there is no such model or data set.
        SamtuneError: a setting is none, or does not fit.
    """
    entry = MODELS[model]
    _ = DATASETS[dataset]
    raw = {
        "trial": {
            "model": {"name": model},
            "dataset": {"name": dataset},
            "optimizer": SGD if entry.task == "classification" else ADAM,
            "sam": {"rho": _middle(*USUAL_RHO[variant]), "variant": variant},
            "training": TRAINING,
        }
    }
    trial = with_overrides(Document("the settings", raw, {}), settings).value["trial"]
    variant = trial["sam"].get("variant", SamConfig().variant)
    low, high = USUAL_RHO.get(variant, USUAL_RHO["sam"])
    lr = trial["optimizer"].get("lr")
    lr = lr if isinstance(lr, int | float) else 0.01
    metrics = study_metrics(entry.task or "classification")
    return TEMPLATE.format(
        model=model,
        dataset=dataset,
        file=file,
        name=re.sub(r"[^A-Za-z0-9._-]", "_", Path(file).stem).lstrip("._-")[:60] or "study",
        trial="\n".join(f"  {section}: {_flow(trial[section])}" for section in trial),
        rho_low=low,
        rho_high=high,
        variant=variant,
        lr_low=f"{lr / 3:.1g}",
        lr_high=f"{lr * 3:.1g}",
        more=_suggestions(model, trial["model"]),
        metric=next(name for name, mode in metrics.items() if mode == "max"),
    )


def _middle(low: float, high: float) -> float:
    """On the log scale, with one digit."""
    return float(f"{(low * high) ** 0.5:.1g}")


def _suggestions(model: str, given: dict[str, Any]) -> str:
    """The model's own numbers as lines that only have to be uncommented."""
    lines = []
    for parameter in MODELS[model].parameters:
        value = given.get(parameter.name, parameter.default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            lines.append(f"  # model.{parameter.name}: {{choice: [{value}, ...]}}\n")
    return "".join(lines)


def _flow(section: dict[str, Any]) -> str:
    """A mapping in one line of YAML."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000
    stream = StringIO()
    yaml.dump(json.loads(json.dumps(section)), stream)
    return stream.getvalue().strip()
