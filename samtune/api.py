"""samtune from Python: running studies, in a notebook too, and looking into them.

What is here puts together what the parts below offer, as the command line does.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from samtune import study as folders
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE, StudyFolder, open_folder
from samtune.study.storage import storage_path
from samtune.words import describe, metric

if TYPE_CHECKING:
    from rich.table import Table

    from samtune.analysis import Response
    from samtune.analysis.confirmed import Confirmed
    from samtune.export import ExportedModel
    from samtune.report.rho import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Trial(folders.Trial):
    """One trial of an opened study."""

    def load_model(self) -> ExportedModel:
        """Its model, with the weights that it counts by, on the CPU and ready for inference.

        It takes images (B, C, H, W) as people have them, uint8 or from 0 to 1, and gives a score
        for each class, as what `samtune export` writes does; `.network` is the network alone.

        Raises:
            SamtuneError: there are no weights on disk, or the model's code is not here.
        """
        from samtune.export import model_of

        return model_of(self)


class Study(folders.Study):
    """A study to look into: its trials, the best, curves as a frame, plots and models."""

    trial_class: ClassVar[type[folders.Trial]] = Trial

    @property
    def best(self) -> Trial | None:
        """The trial with the best metric, the baseline included."""
        return self._ours(super().best)

    def trial(self, key: str) -> Trial:
        """One trial, as `study.trial("t0007")`.

        Raises:
            UnknownNameError: there is none of this key.
            SamtuneError: it is set aside, being damaged.
        """
        found = self._ours(super().trial(key))
        assert found is not None
        return found

    @cached_property
    def recommendation(self) -> Response | None:
        """Which rho to take and how sure that is; None where rho was not searched.

        It takes some seconds the first time, and is kept in the study's folder.
        """
        from samtune.analysis import answer

        return answer(self).response

    @property
    def confirmation(self) -> Confirmed | None:
        """What `samtune confirm` found on test images, last; None before."""
        from samtune.analysis.confirmations import confirmations

        return next(reversed(confirmations(self).values()), None)

    @property
    def gain(self) -> float | None:
        """By how much the best is better than the baseline; None where that cannot be told."""
        best, baseline = self.best, self.baseline
        if not best or not baseline or best.value is None or baseline.value is None:
            return None
        sign = 1 if self.config.mode == "max" else -1
        return None if best.is_baseline else sign * (best.value - baseline.value)

    def plot_rho(self) -> Figure:
        """The score against rho, with its fit and the recommended plateau.

        Raises:
            SamtuneError: rho was not searched, or no trial has a score yet.
        """
        from samtune.report.rho import rho_figure

        return rho_figure(self)

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {said}".strip() for name, said in self._facts())
        return f"<Study {self.name}: {facts}>"

    def __rich__(self) -> Table:
        """What rich prints."""
        from rich.table import Table
        from rich.text import Text

        made = Table(box=None, show_header=False, title=f"study {self.name}", title_justify="left")
        for name, said in self._facts():
            made.add_row(name, Text(said))
        return made

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(said)}</td></tr>"
            for name, said in self._facts()
        )
        return f"<table><caption>study {html.escape(self.name)}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        """The study in a few lines; what takes longer than a look is left to be asked for."""
        try:
            return [("", f"{self.state}, {self.tally}"), *self._facts_of_best()]
        except (OSError, ValueError, SamtuneError) as error:  # its folder may have gone since
            return [("", f"cannot be read: {error}")]

    def _facts_of_best(self) -> list[tuple[str, str]]:
        facts, best, baseline = [], self.best, self.baseline
        if best:
            name = f"{best.key} (baseline)" if best.is_baseline else best.key
            facts.append(("best", f"{name}, {self.metric} {metric(best.value)}"))
            facts.append(("at", describe(best.values)))
        if self.gain is not None and baseline:
            facts.append(("baseline", f"{metric(baseline.value)}, the gain is {self.gain:+.4f}"))
        facts.append(("rho", self._recommendation_at_hand()))
        return facts

    def _recommendation_at_hand(self) -> str:
        if "sam.rho" not in self.config.search_space:
            return "was not searched"
        from samtune.analysis.answer import kept_answer

        found = self.__dict__.get("recommendation")  # where it was asked for
        if found is None and (kept := kept_answer(self)):
            found = kept.response
        return found.sentence if found else ".recommendation says which to take"

    @staticmethod
    def _ours(trial: folders.Trial | None) -> Trial | None:
        assert trial is None or isinstance(trial, Trial)
        return trial


def open_study(name: str, storage: str | Path = DEFAULT_STORAGE) -> Study:
    """A study to read, finished or running: its trials, the best, curves, plots and models.

    It is as it was when it was opened: open it again to see what has come since.

    Args:
        storage: the folder that holds studies.

    Raises:
        UnknownNameError: there is none of this name.
    """
    folder = open_folder(storage_path(storage), name)
    return Study(folder, folder.config())


def run_study(
    study: StudyConfig | Mapping[str, Any] | str | Path,
    *,
    model: Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
    storage: str | Path = DEFAULT_STORAGE,
    address: str | None = None,
    plugin_folder: Path | None = None,
    time_budget_s: float | None = None,
    progress: bool | None = None,
) -> Study:
    """Runs a new study to its end and returns it.

    A program that has started Ray itself keeps it. Ctrl-C, or interrupting the kernel, ends the
    study cleanly after the current epochs; `resume_study` goes on.

    Args:
        study: a study file's path, or what stands in one as a mapping.
        model: a class or a function with keyword-only arguments, for `trial.model` of the study;
            `@register_model` does the same for code that goes by a name.
        overrides: `KEY=VALUE` strings that go over what the study says.
        storage: the folder that holds studies; on a cluster, one that every node sees.
        address: a Ray cluster's address; None is RAY_ADDRESS if set, else Ray on this machine.
        plugin_folder: where plugins are looked for; None is the study file's folder, or this one.
        time_budget_s: end cleanly after this many seconds.
        progress: whether to show how it goes; None does so in a notebook.

    Raises:
        StudyFileError: it lists everything that is wrong with the study.
        SamtuneError: the study exists, or its resources are not there.
        NoUsableTrialError: every trial has ended, and none can be used.
        EndedEarlyError: too many trials failed, or the storage did for too long.
        Interrupted: a signal ended the session.
    """
    from samtune import tuning
    from samtune.config.from_python import study_from_python

    config, folder = study_from_python(
        study, model=model, overrides=overrides, plugin_folder=plugin_folder
    )
    if config.study.baseline == "tuned":
        raise SamtuneError(
            "study.baseline: tuned is a second study, which the command line runs after the first: "
            "use `samtune run`, or baseline: true"
        )
    StudyFolder.check_free(storage_path(storage), config.name)
    to_run = config.wanted_trials + config.study.has_baseline
    with _said_for_python(), _progress(progress, config, None, to_run) as listener:
        tuning.run_study(
            config,
            storage=storage,
            address=address,
            listener=listener,
            plugin_folder=folder,
            time_budget_s=time_budget_s,
            owns_process=False,
        )
    return open_study(config.name, storage)


def resume_study(
    name: str,
    *,
    model: Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
    more_trials: int = 0,
    retry_failed: bool = False,
    storage: str | Path = DEFAULT_STORAGE,
    address: str | None = None,
    plugins: Sequence[str] = (),
    time_budget_s: float | None = None,
    force_unlock: bool = False,
    progress: bool | None = None,
) -> Study:
    """Goes on with a study after any ending, and returns it.

    Args:
        model: the class or function that the study was begun with. What `@register_model` has
            registered, and modules that this program has imported, need not be named.
        overrides: `KEY=VALUE` strings, for settings that leave past trials what they are.
        more_trials: how many trials to add to what the study was to have.
        retry_failed: run the trials again that failed or had too little memory.
        storage: as for `run_study`.
        address: as for `run_study`.
        time_budget_s: as for `run_study`.
        progress: as for `run_study`.
        plugins: modules of your own that the study needs and that are not imported yet.
        force_unlock: take over from a driver on another machine that is surely gone.

    Raises:
        SamtuneError: there is no such study, somebody runs it, or its code is another now.
    """
    from samtune.registry import MODELS
    from samtune.tuning.run import Session, Silent, extended

    folder = open_folder(storage_path(storage), name)
    if model is not None and MODELS.name_of(model) is None:
        MODELS.give(model, "classification")
    named = [*plugins, *(m for m in folder.config().plugins if m in sys.modules)]
    named = [*dict.fromkeys(named)]
    plugin_folder = folder.plugin_folder(named)
    config = extended(folder.checked_config(named, plugin_folder, overrides), more_trials)
    before = Study(folder, config)
    to_run = before.left + (len(before.failed) if retry_failed else 0)
    with _said_for_python(), _progress(progress, config, before, to_run) as listener:
        session = Session(
            address,
            listener or Silent(),
            plugin_folder,
            time_budget_s,
            force_unlock=force_unlock,
            retry_failed=retry_failed,
            owns_process=False,
        )
        session.run(folder, config)
    return open_study(name, storage)


def in_notebook() -> bool:
    """Whether Jupyter, or another frontend of IPython's kernel, runs this program."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _progress(
    wanted: bool | None, config: StudyConfig, before: Study | None, to_run: int
) -> AbstractContextManager[Any]:
    """What shows a session while it runs: a listener, or None for silence."""
    if wanted is False or (wanted is None and not in_notebook()):
        return nullcontext()
    from samtune.cli.console import new_console
    from samtune.cli.notebook import NotebookPanel
    from samtune.cli.session import Detail, shown

    if in_notebook():
        return NotebookPanel(config, before, to_run).displayed()
    return shown(new_console(), Detail.BRIEF, config, before, to_run)


@contextmanager
def _said_for_python() -> Iterator[None]:
    """Says what a Python program is to do where the command line would be told a command."""
    from samtune.tuning.run import Interrupted

    try:
        yield
    except Interrupted as error:
        storage, name = error.folder.root.parent, error.folder.name
        where = "" if storage == DEFAULT_STORAGE.absolute() else f", storage={str(storage)!r}"
        error.args = (f"Interrupted. Go on with: samtune.resume_study({name!r}{where})",)
        raise
