"""The command line: one short file a verb.

Everything heavy is imported inside the verb that needs it, so that `samtune --help` is quick.
"""

from __future__ import annotations

import os
import sys

import typer

from samtune.cli import (
    archive,
    check,
    confirm,
    delete,
    doctor,
    evaluate,
    export,
    gc,
    init,
    list_,
    logs,
    predict,
    registry_view,
    rename,
    report,
    resume,
    run,
    schema,
    sharpness,
    show,
    stop,
    sync,
    train,
    ui,
)
from samtune.errors import SamtuneError

app = typer.Typer(
    name="samtune",
    help="Hyperparameter search for models trained with Sharpness-Aware Minimization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("resume")(resume.resume)
app.command("confirm")(confirm.confirm)
app.command("stop")(stop.stop)
app.command("train")(train.train)
app.command("list")(list_.list_)
app.command("show")(show.show)
app.command("logs")(logs.logs)
app.command("report")(report.report)
app.command("plot")(report.plot)
app.command("sharpness")(sharpness.sharpness)
app.command("export")(export.export)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("sync")(sync.sync)
app.command("ui")(ui.ui)
app.command("models")(registry_view.models)
app.command("datasets")(registry_view.datasets)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("gc")(gc.gc)
app.command("rename")(rename.rename)
app.command("archive")(archive.archive)
app.command("unarchive")(archive.unarchive)
app.command("delete")(delete.delete)


@app.callback(invoke_without_command=True)
def _common(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from samtune import __version__

        typer.echo(f"samtune {__version__}")
        raise typer.Exit()


def main() -> None:
    """The `samtune` command; a user's mistake is a sentence and an exit code, never a traceback."""
    try:
        app()
    except SamtuneError as error:
        print(f"samtune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone, as in `samtune list | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:
        # A path too long, no rights, a full disk: what the machine says, and nothing of ours.
        where = f"{error.filename}: " if error.filename else ""
        print(f"samtune: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
