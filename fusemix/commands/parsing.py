"""Options of commands: parsers that explain themselves, and one line for each slip."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Sequence
from inspect import cleandoc

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from fusemix.commands.exits import Exit
from fusemix.errors import FusemixError
from fusemix.options import check_flags
from fusemix.recipe import Recipe, add_recipe_arguments, packaged_recipes, parse_recipe, recipe_path


class HelpFormatter(DefaultHelpFormatter):
    """Says of an option what it does and its default, not the types of Python."""

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if action.required:
            return f"{text} (required)" if action.option_strings else text
        shown = default is not None and default is not False and default not in (SUPPRESS, "", [], (), {})
        return f"{text} (default: %(default)s)" if shown else text


def summary(text: str | None) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join(cleandoc(text or "").partition("\n\n")[0].split())


def command_parser(name: str, usage: str, description: str | None, *exits: Exit) -> ArgumentParser:
    """Return a parser without options.

    Args:
        name: the command.
        usage: what follows it.
        description: docstring of the command.
        exits: its exit codes besides those of every command.
    """
    codes = sorted({Exit.COMPLETE, Exit.BAD_INPUT, Exit.STOPPED, *exits})
    return ArgumentParser(
        prog=f"fusemix {name}",
        usage=f"fusemix {name} {usage}".rstrip(),
        description=summary(description),
        epilog="exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in codes),
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,  # it would print the command's options too, and so no recipe
    )


def add_device(parser: ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def parse_options(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Return the options of a command that takes no recipe.

    Raises:
        FusemixError: naming the option that is unknown or wrong.
    """
    if {"-h", "--help"} & set(arguments):
        parser.parse_args(["--help"])
    check_flags(parser, arguments)
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        message = " ".join(str(error).replace("Parser key", "option").split())
        raise FusemixError(f"{message}; see {parser.prog} --help") from error


def parse_recipe_options(
    parser: ArgumentParser, arguments: Sequence[str], stages: Sequence[str]
) -> tuple[Recipe, Namespace]:
    """Return the recipe that the first argument names, changed by the others, and the command's own options.

    Args:
        parser: of a command whose first argument is a recipe; its own options are added already.
        arguments: recipe, flags and values.
        stages: the recipe's sections that the command uses; the help leaves the others out.

    Raises:
        FusemixError: where no recipe is named, or for a wrong option.
    """
    add_recipe_arguments(parser)
    if {"-h", "--help"} & set(arguments):
        _hide_other_stages(parser, stages)
        parser.parse_args(["--help"])
    if not arguments or arguments[0].startswith("-"):
        raise FusemixError(f"which recipe? {parser.prog} RECIPE, with one of {', '.join(packaged_recipes())}")
    return parse_recipe(parser, recipe_path(arguments[0]), arguments[1:])


def chosen_pair(recipe: Recipe, given: Sequence[str] | None) -> tuple[str, str]:
    """Return the two modalities that `--pair` names, or the recipe's only two.

    Raises:
        FusemixError: where it names others, or there are more and it is left out.
    """
    names = list(recipe.encoders)
    a, b = given if given else names if len(names) == 2 else ("", "")
    if a == b or not {a, b} <= set(names):
        said = f"--pair {a} {b}" if given else "two modalities are compared"
        raise FusemixError(f"{said}: choose two of {', '.join(names)} with --pair A B")
    return a, b


def _hide_other_stages(parser: ArgumentParser, stages: Sequence[str]) -> None:
    for action in parser._actions:
        stage = action.dest.partition(".")[0]
        if stage in ("extract", "fuse", "benchmark") and (stage not in stages or "." not in action.dest):
            action.help = SUPPRESS
