"""`fwi-refine completion`: what a shell needs to complete commands, options and file names."""

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from fwi_refine.cli import OK, PROGRAM, options

# Click's own script offers either words or file names. The first argument may be both: a command,
# or, as `refine` need not be typed, a file.
BASH = """\
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    compopt -o default
    while IFS=, read -r kind value; do
        if [[ $kind == plain ]]; then
            COMPREPLY+=("$value")
        elif [[ $kind == file ]]; then
            compopt -o filenames
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$value")
        fi
    done < <(
        IFS=$'\\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1"
    )
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    source_template = BASH


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": FishComplete}


@options.command("completion")
@click.argument("shell", type=click.Choice([*SHELLS]))
def command(
    shell: str,
) -> int:
    """Print what SHELL needs for completion with the tab key.

    \b
    Examples:
      eval "$(fwi-refine completion bash)"    # in ~/.bashrc
      eval "$(fwi-refine completion zsh)"     # in ~/.zshrc, after compinit
      fwi-refine completion fish > ~/.config/fish/completions/fwi-refine.fish

    Then commands, options, their choices and file names complete, also where `refine` was left
    out.
    """
    root = click.get_current_context().find_root().command
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    click.echo(SHELLS[shell](root, {}, PROGRAM, variable).source())
    return OK
