"""What the pages show is well-formed: a quick look at every block; `test_pages` runs them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from samtune.cli import app
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.registry import load_plugins
from tests.docs.blocks import PAGES, Block, all_blocks, blocks, inline_commands, words

GROUP: Any = typer.main.get_command(app)

# Blocks that are no code but what a command prints or leaves, by their beginning.
PRINTED = (
    "Best: t0012",
    "SAM with rho 0.597",
    "samtune_studies/NAME/",
    "left out is node",
    "tags.`samtune.state`",
    "# yaml-language-server",
)


def test_every_block_is_of_a_known_language() -> None:
    for block in all_blocks("text"):
        assert block.text.startswith(PRINTED), f"{block}: neither code nor known to be printed"


@pytest.mark.parametrize("block", all_blocks("shell"), ids=str)
def test_every_command_parses(block: Block) -> None:
    for command in block.commands:
        program, *arguments = words(command)
        if program == "samtune":
            _parse(arguments, str(block))


def _parse(arguments: list[str], where: str) -> None:
    verb = GROUP.commands.get(arguments[0])
    assert verb is not None, f"{where}: there is no samtune {arguments[0]}"
    try:
        verb.make_context(arguments[0], arguments[1:])
    except click.ClickException as error:
        pytest.fail(f"{where}: samtune {' '.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_verbs_and_options_that_sentences_name_are_there(page: Path) -> None:
    for command in inline_commands(page):
        _, verb, *rest = command.split()
        if verb.startswith("-"):
            continue  # an option of samtune itself
        verb = verb.rstrip(",")
        assert verb in GROUP.commands, f"{page.name}: `{command}`"
        options = {name for p in GROUP.commands[verb].params for name in (*p.opts, "--help")}
        for option in re.findall(r"(?<!\S)--[\w-]+", " ".join(rest)):
            assert option in options, f"{page.name}: `{command}`"


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=str)
def test_every_study_file_is_valid(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = parse_yaml(block.text, str(block))
    if not isinstance(document.value, dict) or "name" not in document.value:
        return  # a part of one
    plugins = document.value.get("plugins", [])
    for beside in blocks(next(p for p in PAGES if p.name == block.page)):
        if beside.title.removesuffix(".py") in plugins:
            (tmp_path / beside.title).write_text(beside.text)
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(plugins, tmp_path)
    check_study(document, tmp_path)


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_every_snippet_compiles_and_what_it_imports_is_there(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
