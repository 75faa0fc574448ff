# SPDX-License-Identifier: Apache-2.0
"""Completions of shells that know the products of the machine, and those for fish.

Names come from what the daemon publishes for everybody, by sed: no interpreter is
started for a press of the tab key. shtab writes bash's and zsh's; fish's are here.
"""

import argparse

STATUS = "/run/updaterd/status.json"
NAMES = (
    'sed -n \'/^ "products": \\[/,$ s/^   "name": "\\(.*\\)",$/\\1/p\' '
    f"{STATUS} 2>/dev/null"
)
PREAMBLE = {
    "bash": f"""_updaterd_products() {{
  compgen -W "$({NAMES})" -- "$1"
}}
""",
    "zsh": f"""_updaterd_products() {{
  local -a names
  names=(${{(f)"$({NAMES})"}})
  compadd -a names
}}
""",
}


def know_products(parser):
    """Have every argument that is a product completed by the machine's own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                know_products(sub)
        elif action.dest == "product" and not action.option_strings:
            action.complete = dict.fromkeys(("bash", "zsh"), "_updaterd_products")


def quoted(text):
    """Return a word as fish reads it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{' '.join(escaped.split())}'"


def fish(parser):
    """Return the completions for fish."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        "function __updaterd_products",
        f"    {NAMES}",
        "end",
        "complete -c updaterd -f",
    ]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            lines += [
                line
                for name, sub in action.choices.items()
                for line in _of_command(name, sub, helps.get(name) or sub.description)
            ]
    return "\n".join(lines) + "\n"


def _spelt(option):
    """Return an option as fish wants it declared."""
    kind = "l" if option.startswith("--") else "s"
    return f"-{kind} {option.lstrip('-')}"


def _of_command(name, parser, about):
    """Yield a command, and the completions below it."""
    top = "complete -c updaterd -n __fish_use_subcommand"
    yield f"{top} -a {name} -d {quoted(about or '')}"
    start = f"complete -c updaterd -n '__fish_seen_subcommand_from {name}'"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield f"{start} -a {quoted(' '.join(action.choices))}"
        elif action.dest == "product" and not action.option_strings:
            yield f"{start} -a '(__updaterd_products)'"
        elif action.option_strings and action.help is not argparse.SUPPRESS:
            words = [start, *map(_spelt, action.option_strings)]
            if action.nargs != 0:
                words.append("-r")
            if action.choices:
                words.append(f"-a {quoted(' '.join(map(str, action.choices)))}")
            elif action.type and getattr(action.type, "__name__", "") == "Path":
                words.append("-F")
            about = (action.help or "").partition(" (default")[0]
            yield " ".join([*words, "-d", quoted(about.replace("%%", "%"))])
