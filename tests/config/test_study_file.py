from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import trial_with
from samtune.config.schema import StudyConfig
from samtune.config.space import FloatRange
from samtune.config.study_file import check_study, read_study, to_yaml
from samtune.config.yaml_reader import parse_yaml
from samtune.errors import SamtuneError, StudyFileError
from tests.conftest import TINY

SEARCH_SPACES = Path(__file__).parents[2] / "search_spaces"
Make = Callable[..., StudyConfig]


@pytest.mark.parametrize("path", sorted(SEARCH_SPACES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_file_is_valid_and_named_like_its_file(path: Path) -> None:
    assert read_study(path).name == path.stem


def test_all_mistakes_are_listed_at_once_with_lines_and_suggestions(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """name: bad name
trial:
  model: {name: wide_resent}
  dataset: {name: digits, label_noise: 1.4}
  optimizer: {name: sgd, lr: -1, momentm: 0.9}
  sam: {rho: .nan}
  training: {epochs: 2.5, batchsize: 120}
search_space:
  sam.rho: {float: [0.5, 0.1]}
  sam.roh: {float: [0.1, 0.5]}
  model.depth: {int: [10, 16], step: 4}
  training.batch_size: {choice: []}
study: {metric: val_acc, scheduler: {name: asha, redution_factor: 2}}
"""
    )
    with pytest.raises(StudyFileError) as error:
        read_study(path)
    problems = "\n".join(error.value.problems)
    for expected in (
        "line 1, name: must be 1 to 64 letters",
        "line 3, trial.model.name: No model named 'wide_resent'. Did you mean 'wide_resnet'?",
        "line 4, trial.dataset.label_noise: should be less than 1, got 1.4",
        "line 5, trial.optimizer.lr: must be a number above 0, got -1",
        "line 5, trial.optimizer.momentm: no such setting. Did you mean 'momentum'?",
        "line 6, trial.sam.rho: should be a finite number",
        "line 7, trial.training.epochs: should be a valid integer, got 2.5",
        "line 7, trial.training.batchsize: no such setting. Did you mean 'batch_size'?",
        "line 9, search_space.sam.rho: the lower end must be below the upper, got [0.5, 0.1]",
        "line 10, search_space.sam.roh: trial has no such setting. Did you mean 'sam.rho'?",
        "line 11, search_space.model.depth: steps of 4 from 10 do not meet 16",
        "line 12, search_space.training.batch_size",
        "line 13, study.scheduler.redution_factor: no such setting. Did you mean 'reduction_fac",
    ):
        assert expected in problems
    assert str(error.value).startswith(f"{path} has {len(error.value.problems)} problems:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rho: 0.3", "rho: -0.1", "trial.sam.rho: should be greater than or equal to 0"),
        ("lr: 0.1", "lr: .inf", "trial.optimizer.lr: should be a finite number"),
        ("lr: 0.1", "lr: 1.0e+300", "torch.optim.SGD refuses this: .*overflow"),
        ("lr: 0.1", "lr: 3.0e+38", "torch.optim.SGD takes the weights to infinity in two steps"),
        ("lr: 0.1", "lr: true", "trial.optimizer.lr: should be a valid number, got true"),
        ("momentum: 0.9", "dampening: abc", "optimizer.dampening: should be a valid number"),
        ("momentum: 0.9", "nesterov: 5", "optimizer.nesterov: should be a valid boolean, got 5"),
        ("sgd, lr: 0.1, momentum: 0.9", "adam, amsgrad: no", "amsgrad: should be a valid boolean"),
        (
            "sgd, lr: 0.1, momentum: 0.9",
            "adam, betas: [0.9]",
            "optimizer.betas: needs more values, got .0.9.",
        ),
        ("sgd, lr: 0.1, momentum: 0.9", "muon", "torch.optim.Muon refuses this: .* 2D parameters"),
        ("sgd, lr: 0.1, momentum: 0.9", "adadelta", "No optimizer named 'adadelta'"),
        (
            "momentum: 0.9}\n  sam: {",
            "}\n  sam: {variant: msam, ",
            "MSAM climbs along the",
        ),
        ("rho: 0.3", "rho: 1.0e+300", "trial.sam.rho: should be less than or equal to 1000000"),
        ("rho: 0.3", "rho: true", "trial.sam.rho: should be a valid number, got true"),
        ("rho: 0.3", "adaptive: yes", "trial.sam: adaptive must be true or false, got 'yes'"),
        ("{rho: 0.3}", "3", "trial.sam: must be a mapping, got 3"),
        ("study: {trials: 4, ", "study: 3\nx: {", "study: must be a mapping, got 3"),
        (
            "label_noise: 0.4",
            "label_noise: true",
            "label_noise: should be a valid number",
        ),
        ("sam.rho: {", "sam.rho: []\n  sam.eta: {", "search_space.sam.rho: needs a distribution"),
        ("sam.rho: {", "sam.rho: {when: {sam.variant: []}, ", "sam.variant must be a value or"),
        ("sam.rho: {", "sam.rho: {when: {sam.varant: sam}, ", "Did you mean 'sam.variant'"),
        (
            "float: [0.01, 1.0], log: true}\n  opt",
            "float: [0, 1.0e+300], step: 1.0e-300}\n  opt",
            "there are too many steps of 1e-300",
        ),
        ("search_space:", "trianing: {}\nsearch_space:", "Did you mean 'trial.training'"),
        ("sam.rho:", "sam.lr:", "Did you mean 'optimizer.lr'"),
        ("sam.rho:", "trianing.batch_size:", "Did you mean 'training.batch_size'"),
        ("sam.rho:", "sam.xyz:", "sam.xyz: trial has no such setting. There are: sam.rho, sam.var"),
        ("name: sgd", "name: sgdd", "No optimizer named 'sgdd'. Did you mean 'sgd'"),
        ("name: sgd", "name: lbfgs", "No optimizer named 'lbfgs'"),
        ("momentum: 0.9", "nesterov: true", "torch.optim.SGD refuses this: Nesterov momentum"),
        ("depth: 10", "depth: 13", "depth must be 10, 16, 22, 28, .* got 13; try 10 or 16"),
        ("epochs: 3", "epochs: 0", "should be greater than 0"),
        ("epochs: 3", "epochs: true", "trial.training.epochs: should be a valid integer"),
        ("grace_epochs: 1", "grace_epochs: 4", r"must be at most training.epochs \(3\), got 4"),
        ("reduction_factor: 2", "reduction_factor: 1", "should be greater than or equal to 2"),
        ("study: {", "study: {metric: val_accc, ", "no metric named 'val_accc'. Did you mean"),
        ("study: {", "study: {mode: min, ", "val_accuracy is better when it is maximal"),
        ("study: {", "study: {resources: {gpus: 1.5}, ", "at most 1 or a whole number"),
        ("study: {", "study: {resources: {cpus: 0}, ", "study.resources.cpus"),
        ("study: {", "study: {resources: {cpus: 5000}, ", "should be less than or equal to 1024"),
        (
            "study: {",
            "study: {resources: {gpus: some}, ",
            "must be auto or a number from 0",
        ),
        ("study: {", "study: {sampler: grid, ", "grid needs a step or a choice for sam.rho"),
        ("float: [0.01, 1.0], log: true}\n  opt", "float: [0, 1], log: true}\n  opt", "above 0"),
        ("sam.rho:", "training.epochs:", "is the scheduler's budget and cannot be searched"),
        ("sam.rho:", "dataset.name:", "cannot be searched: trials would not compare"),
        ("float: [0.01, 1.0]", "float: [-0.1, 1.0]", "log scale needs a lower end above 0"),
        ("{float: [0.01, 1.0], log: true}", "{flaot: [0, 1]}", "must be {float: "),
        (
            "{float: [0.01, 1.0], log: true}",
            "{choice: [-1, 1]}",
            "sam.rho: allows -1: should be greater",
        ),
        ("sam.rho: {float: [0.01, 1.0], log: true}", "model.depth: {int: [10, 16]}", "allows 11: "),
        ("name: tiny\n", "name: tiny\nplugins: 3\n", "plugins"),
        ("depth: 10", "depth: 1000000000000", "depth must be at most 1204"),
        ("width_factor: 1", "width_factor: 1000000000", "trial.model: .*overflow"),
        ("batch_size: 400", "batch_size: null", "trial.training.batch_size"),
        ("name: tiny\n", "name: ../tiny\n", "name: must be 1 to 64"),
        ("name: tiny\n", "nmae: tiny\n", "nmae: no such setting. Did you mean 'name'"),
    ],
)
def test_one_mistake_is_one_sentence(study_config: Make, old: str, new: str, message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        study_config((old, new))


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "got nothing"), ("- 1", r"got \[1\]"), ("just words", "got 'just words'")],
)
def test_what_is_no_mapping_is_refused(text: str, found: str) -> None:
    with pytest.raises(StudyFileError, match=found):
        check_study(parse_yaml(text, "x"), Path.cwd())


def test_the_command_line_goes_over_the_file(tmp_path: Path, study_text: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text)
    config = read_study(
        path,
        [
            *("training.epochs=5", "trial.optimizer.lr=2e-1", "study.trials=8", "name=other"),
            *("search_space.sam.rho={float: [0.1, 1]}", "search_space.optimizer.lr=null"),
        ],
    )
    assert config.name == "other"
    assert config.trial.training.epochs == 5
    assert config.trial.optimizer.params["lr"] == 0.2
    assert config.study.trials == 8
    assert list(config.search_space) == ["sam.rho"]
    distribution = config.search_space["sam.rho"][0]
    assert isinstance(distribution, FloatRange)
    assert distribution.bounds == (0.1, 1.0)


def test_a_mistake_on_the_command_line_is_said_to_be_there(tmp_path: Path, study_text: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text)
    with pytest.raises(StudyFileError, match="command line, trial.sam.rhoo: no such setting"):
        read_study(path, ["sam.rhoo=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("=", "'=' is no override: write KEY=VALUE"),
        ("=3", "'=3' is no override"),
        ("sam..rho=3", "is no override"),
        ("a=", "'a=' has no value: write a=VALUE, or a=null to take it out"),
        ("study=", "'study=' has no value"),
        ("study.trails=", "'study.trails=' has no value"),
        ("study.trials=  # eight", "has no value"),
        ("study.trails=null", "study.trails: no such setting. Did you mean 'trials'"),
        ("trianing.epochs=3", "trianing: no such setting. Did you mean 'trial.training'"),
        ("sam.roh=null", "trial.sam.roh: no such setting. Did you mean 'rho'"),
        ("name.first=x", "where name is 'tiny': override the whole of it, as in 'name={...}'"),
        ("training.epochs.most=3", "where trial.training.epochs is 3"),
        ("sam.rho=[1", "the value of sam.rho has 1 problem: line 1"),
        ("sam.rho=" + "9" * 5000, "the value of sam.rho .* a number of 5000 characters"),
    ],
)
def test_an_override_that_changes_nothing_is_refused(
    tmp_path: Path, study_text: str, override: str, message: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text)
    with pytest.raises(SamtuneError) as error:
        read_study(path, [override])
    assert re.search(message, " ".join(str(error.value).split()))


@pytest.mark.parametrize(
    ("overrides", "searched"),
    [
        (["sam.rho=0.1"], "sam.rho"),
        (["study.trials=3", "trial.optimizer.lr=0.2"], "optimizer.lr"),
        (["sam={rho: 0.1}"], "sam.rho"),
        (["trial.sam={variant: asam, rho: 0.1}"], "sam.rho"),
        (["search_space.model.depth={choice: [10, 16]}", "model.depth=16"], "model.depth"),
    ],
)
def test_a_setting_that_every_trial_draws_cannot_be_overridden(
    tmp_path: Path, study_text: str, overrides: list[str], searched: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text)
    with pytest.raises(SamtuneError) as error:
        read_study(path, overrides)
    assert f"the search space draws {searched}" in str(error.value)
    assert f"search_space.{searched}=null" in str(error.value)
    assert read_study(path, [*overrides, f"search_space.{searched}=null"])


def test_what_is_not_drawn_by_every_trial_may_be_overridden(
    tmp_path: Path, study_text: str
) -> None:
    path = tmp_path / "tiny.yaml"
    conditional = "  sam.variant: {choice: [sam, fsam]}\n  sam.sigma: " + (
        "{float: [0.5, 2.0], when: {sam.variant: fsam}}\n"
    )
    path.write_text(study_text.replace("search_space:\n", "search_space:\n" + conditional))
    assert read_study(path, ["sam.sigma=1.5"]).trial.sam.sigma == 1.5
    assert read_study(path, ["sam.rho=0.7"], for_search=False).trial.sam.rho == 0.7
    assert read_study(path).trial.sam.rho == 0.3  # the file's own base value stays


def test_an_override_into_a_short_form_does_not_forget_it(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY[: TINY.index("study: {")] + "study: {scheduler: median}")
    with pytest.raises(SamtuneError, match="study.scheduler is 'median'"):
        read_study(path, ["study.scheduler.grace_epochs=2"])


def test_overrides_do_not_hide_that_a_file_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1")
    with pytest.raises(StudyFileError, match="a study file is a mapping"):
        read_study(path, ["sam.rho=0.1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.epochs=1"], "command line, trial.training.epochs: must be at least study."),
        (
            ["study.scheduler.grace_epochs=9"],
            r"command line, study.* at most training.epochs",
        ),
    ],
)
def test_the_override_at_fault_is_named(
    tmp_path: Path, study_text: str, overrides: list[str], message: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text.replace("grace_epochs: 1", "grace_epochs: 2"))
    with pytest.raises(StudyFileError, match=message):
        read_study(path, overrides)


RHO = "sam.rho: {float: [0.01, 1.0], log: true}"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "sam.variant: {choice: [sam, msam]}\n  optimizer.momentum: {float: [0, 0.9]}",
            "allows sam.variant = 'msam', optimizer.momentum = 0.0, .*: MSAM climbs along",
        ),
        (
            "optimizer.nesterov: {choice: [true, false]}\n"
            "  optimizer.momentum: {choice: [0.0, 0.9]}",
            "nesterov = true, optimizer.momentum = 0.0, .*: Nesterov momentum requires",
        ),
        (
            "optimizer.name: {choice: [sgd, adam]}\n  optimizer.momentum: {choice: [0.0, 0.9]}",
            "optimizer.name = 'adam', .*momentum: no such setting",
        ),
        ("optimizer.weight_decay: {float: [0, 1.0e+300]}", "weight_decay = 1e.300, .*overflow"),
    ],
)
def test_combinations_that_cannot_step_are_found(
    study_config: Make, space: str, message: str
) -> None:
    with pytest.raises(StudyFileError) as error:
        study_config((RHO, space))
    assert re.search(message, str(error.value))


@pytest.mark.parametrize(
    "space",
    [
        "sam.variant: {choice: [sam, msam]}\n  optimizer.momentum: {float: [0.1, 0.9]}",
        "sam.variant: {choice: [sam, msam]}\n"
        "  optimizer.momentum: {choice: [0.0, 0.9], when: {sam.variant: sam}}",
        "optimizer.name: {choice: [sgd, adam]}\n"
        "  optimizer.momentum: {float: [0.1, 0.9], when: {optimizer.name: sgd}}",
    ],
)
def test_a_combination_counts_and_not_each_value_over_the_base(
    study_config: Make, space: str
) -> None:
    study_config((RHO, space))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "rmsprop", "adafactor"])
def test_every_usual_optimizer_passes_with_its_defaults(study_config: Make, name: str) -> None:
    config = study_config(("sgd, lr: 0.1, momentum: 0.9", f"{name}, lr: 0.01"))
    assert config.trial.optimizer.name == name


def test_the_resolved_file_reads_back_as_the_same_study(study_config: Make) -> None:
    config = study_config()
    assert check_study(parse_yaml(to_yaml(config), "x"), Path.cwd()) == config


def test_sampled_values_are_laid_over_the_base_trial(study_config: Make) -> None:
    trial = trial_with(study_config(), {"sam.rho": 0.7, "model.depth": 16})
    assert trial.sam.rho == 0.7
    assert trial.model.params["depth"] == 16
    assert trial.optimizer == study_config().trial.optimizer
    assert trial.hash != study_config().trial.hash


def test_another_model_leaves_the_first_ones_parameters_behind(study_config: Make) -> None:
    trial = trial_with(study_config(), {"model.name": "wrn_40_4", "model.dropout": 0.1})
    assert trial.model.params == {"dropout": 0.1}


CONDITIONAL = """sam.rho:
    - {float: [0.01, 1.0], log: true, when: {sam.variant: sam}}
    - {float: [0.5, 5.0], when: {sam.variant: asam}}
  sam.variant: {choice: [sam, asam]}
"""


def test_a_conditional_parameter_follows_what_it_depends_on(study_config: Make) -> None:
    config = study_config(("sam.rho: {float: [0.01, 1.0], log: true}\n", CONDITIONAL))
    assert list(config.search_space)[-1] == "sam.rho"
    name, distribution = config.active("sam.rho", {"sam.variant": "asam"}) or ("", None)
    assert name == "sam.rho[1]"
    assert isinstance(distribution, FloatRange)
    assert distribution.bounds == (0.5, 5.0)
    assert len(list(config.combinations(["sam.variant", "sam.rho"]))) == 4


def test_conditions_in_a_ring_are_refused(study_config: Make) -> None:
    ring = (
        "sam.rho: {float: [0.01, 1.0], when: {sam.variant: asam}}\n"
        "  sam.variant: {choice: [sam, asam], when: {sam.rho: 0.5}}\n"
    )
    with pytest.raises(StudyFileError, match=r"sam.rho, sam.variant form a ring"):
        study_config(("sam.rho: {float: [0.01, 1.0], log: true}\n", ring))


def test_relative_paths_start_from_the_study_file(tmp_path: Path, study_text: str) -> None:
    text = study_text.replace(
        "{name: digits, label_noise: 0.4}", "{name: cifar10, root: pictures, download: false}"
    )
    config = check_study(parse_yaml(text, "x"), tmp_path)
    assert config.trial.dataset.params["root"] == str(tmp_path / "pictures")


def test_plugins_are_imported_from_beside_the_file(
    tmp_path: Path, study_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "my_plugin_models.py").write_text(
        "from torch import nn\nfrom samtune import register_model\n\n"
        "@register_model('my_plugin_mlp')\n"
        "class Mlp(nn.Sequential):\n"
        "    def __init__(self, *, num_classes: int, hidden: int = 8):\n"
        "        head = nn.Linear(hidden, num_classes)\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(hidden), head)\n"
    )
    text = study_text.replace(
        "name: wide_resnet, depth: 10, width_factor: 1", "name: my_plugin_mlp, hidden: 4"
    )
    config = check_study(parse_yaml(f"plugins: [my_plugin_models]\n{text}", "x"), tmp_path)
    assert config.trial.model.params == {"hidden": 4}
    broken = tmp_path / "broken_plugin.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(
        Exception, match="plugin 'broken_plugin' cannot be imported: ModuleNotFound"
    ):
        check_study(parse_yaml(f"plugins: [broken_plugin]\n{text}", "x"), tmp_path)


def test_a_range_of_a_billion_values_is_checked_at_once(study_config: Make) -> None:
    config = study_config(
        ("sam.rho: {float: [0.01, 1.0], log: true}", "sam.rho: {float: [0, 1.0e6], step: 1.0e-6}"),
        ("optimizer.lr: {float: [0.01, 0.5],", "training.batch_size: {int: [1, 500000000],"),
        ("study: {", "study: {sampler: grid, "),
    )
    assert config.wanted_trials == 4


def test_paths_among_choices_start_from_the_study_file_as_others_do(
    tmp_path: Path, study_text: str
) -> None:
    (tmp_path / "folder_plugin.py").write_text(
        "from pathlib import Path\n"
        "from samtune import register_dataset\n\n"
        "@register_dataset('in_folders')\n"
        "def in_folders(*, masks: Path | None = None, label: str = 'x'): ...\n"
    )
    text = study_text.replace("digits, label_noise: 0.4", "in_folders, masks: a").replace(
        "search_space:",
        "search_space:\n  dataset.masks: {choice: [a, ../b, /c, null]}\n"
        "  dataset.label: {choice: [a, b], when: {dataset.masks: [a, /c]}}",
    )
    config = check_study(parse_yaml(f"plugins: [folder_plugin]\n{text}", "x"), tmp_path)
    (masks,), (label,) = (config.search_space[f"dataset.{key}"] for key in ("masks", "label"))
    assert masks.examples == [str(tmp_path / "a"), str(tmp_path / "../b"), "/c", None]
    assert label.examples == ["a", "b"]
    assert label.when == {"dataset.masks": [str(tmp_path / "a"), "/c"]}
    assert config.active("dataset.label", {}) == ("dataset.label", label)


def test_a_mistake_in_one_section_hides_none_in_another(study_config: Make) -> None:
    with pytest.raises(StudyFileError) as error:
        study_config(
            *(("depth: 10", "depth: 17"), ("batch_size: 400", "batchsize: 400")),
            *(("lr: 0.1,", "lr: -0.1,"), ("{trials: 4, ", "{trails: 4, metric: val_acc, ")),
            ("search_space:", "search_space:\n  dataset.label_noise: {choice: [0.1, 1.4]}"),
        )
    problems = " ".join(error.value.problems)
    for expected in (
        *("depth must be 10", "training.batchsize", "optimizer.lr", "study.trails"),
        *("no metric named 'val_acc'", "dataset.label_noise: allows 1.4"),
    ):
        assert expected in problems
    assert len(error.value.problems) == 6
