"""Write ``docs/reference/cli.md`` from the commands themselves: ``python docs/generate_cli.py``.

Shows what risen-plugin brings; commands of other installed plugins are left out.
"""

from __future__ import annotations

from pathlib import Path

import click

from risen_plugin.cli import HELP, command_line

PAGE = Path(__file__).parent / "reference" / "cli.md"
WIDTH = 88
HEAD = """\
# Command line

Written by `docs/generate_cli.py` from the commands themselves; a test holds it to them.

Results go to standard output, progress bars and messages to standard error. What a person can mend
is reported in one line, with exit code 2; `risen --debug COMMAND` shows the traceback too.
Anything else is a bug and shows its traceback. Installed plugins may add commands.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | no RISEN phase of `train` or `adapt` was kept by the guard; or `audit` has findings |
| 2 | refused, with one line that says what to do |
| 130 | interrupted |

A bug ends with 1 too, and with a traceback. `adapt --keep-anyway` ends with 0, and so does `demo`,
which shows what happened. `--json` prints the result as data on standard output.

## Shell completion

```
eval "$(_RISEN_COMPLETE=bash_source risen)"            # in ~/.bashrc
eval "$(_RISEN_COMPLETE=zsh_source risen)"             # in ~/.zshrc
_RISEN_COMPLETE=fish_source risen | source             # in ~/.config/fish/completions/risen.fish
```

It completes commands and options, the names of rewards, generators, schedulers and exporters that
installed plugins offer, the folders of runs, and files.
"""


def page() -> str:
    """The text of the page."""
    group = command_line()
    foreign = {
        name
        for info in group.plugins.infos()
        if info.distribution != "risen-plugin"
        for name in info.commands
    }
    names = sorted(group.commands.keys() - foreign)
    shown = click.Group("risen", help=group.help, params=group.params)
    for name in names:
        shown.add_command(group.commands[name])
    sections = [HEAD, _section(shown, "risen")]
    sections += [_section(group.commands[name], f"risen {name}") for name in names]
    return "\n".join(sections)


def _section(command: click.Command, title: str) -> str:
    context = click.Context(
        command,
        info_name=title,
        max_content_width=WIDTH,
        terminal_width=WIDTH,
        help_option_names=list(HELP),
    )
    text = f"## {title}\n\n```\n{command.get_help(context)}\n```\n"
    inside = command.commands if isinstance(command, click.Group) and title != "risen" else {}
    return "\n".join([text, *(_section(one, f"{title} {name}") for name, one in inside.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
