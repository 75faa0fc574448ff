# SPDX-License-Identifier: Apache-2.0
"""Completions know every command, and the products of the machine."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from updaterd import cli, status
from updaterd.core.settings import (
    Directories,
    Download,
    Feed,
    Product,
    Schedule,
    Settings,
    Trust,
)

FILE = Path(__file__).parents[2] / "packaging/completions.py"


@pytest.fixture(scope="module")
def completions():
    spec = importlib.util.spec_from_file_location("completions", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(folder, *names):
    places = Directories(config=folder, state=folder, cache=folder, runtime=folder)
    settings = Settings(
        feed=Feed(url="https://updates.example.com/v1/events"),
        trust=Trust(root=folder, repository="https://updates.example.com/repo"),
        download=Download(),
        schedule=Schedule(),
        products={name: Product(name=name, root=folder / name) for name in names},
        directories=places,
    )
    document = status.collect(None, settings, daemon=None, now=1_800_000_000.0)
    (folder / "status.json").write_bytes(status.encode(document))


def shell(text):
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.split()


def test_names_of_products_are_those_the_daemon_published(completions, tmp_path):
    published(tmp_path, "acme", "other-thing")
    names = completions.NAMES.replace(completions.STATUS, f"{tmp_path}/status.json")
    assert shell(names) == ["acme", "other-thing"]

    function = completions.PREAMBLE["bash"].replace(completions.NAMES, names)
    assert shell(f"{function}\n_updaterd_products ot") == ["other-thing"]


def test_without_a_daemon_there_is_nothing_to_complete_and_no_complaint(completions):
    names = completions.NAMES.replace(completions.STATUS, "/nonexistent")
    assert shell(f"{names} || true") == []


def test_fish_knows_every_command_and_which_take_a_product(completions):
    text = completions.fish(cli.build_parser())

    for command in cli.COMMANDS:
        assert f"__fish_use_subcommand -a {command.name} -d '" in text
    for name in ("update", "why", "hold", "history"):
        seen = f"'__fish_seen_subcommand_from {name}' -a '(__updaterd_products)'"
        assert seen in text
    assert "from update' -l trigger -r -a 'manual event poll boot'" in text
    assert all(
        line.count("'") % 2 == line.count("\\'") % 2 for line in text.split("\n")
    )


def test_every_argument_that_is_a_product_is_completed(completions):
    parser = cli.build_parser("why")
    completions.know_products(parser)
    (commands,) = (a for a in parser._actions if a.dest == "command")
    (product,) = (a for a in commands.choices["why"]._actions if a.dest == "product")
    assert product.complete["zsh"] == "_updaterd_products"
