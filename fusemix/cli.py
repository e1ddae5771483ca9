"""The command line: finds the command, and turns whatever stops it into a line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from types import FrameType
from typing import NoReturn

from fusemix.commands.baking import bakeoff
from fusemix.commands.classifying import classify
from fusemix.commands.comparing import compare
from fusemix.commands.comparing_encoders import cka
from fusemix.commands.curves import curves
from fusemix.commands.diagnosing import diagnose
from fusemix.commands.encoders import check_encoder, encoders
from fusemix.commands.exits import Exit
from fusemix.commands.extraction import extract, merge
from fusemix.commands.inspecting import inspect
from fusemix.commands.parsing import summary
from fusemix.commands.searching import search
from fusemix.commands.training import benchmark, fuse
from fusemix.errors import FusemixError, Stopped, TooManyFailures, nearest
from fusemix.recipe import packaged_recipes

_FULL = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_PLACE = _FULL | {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@dataclass(frozen=True)
class Command:
    """A command, as the overview shows it."""

    arguments: str
    """What follows its name."""
    run: Callable[[Sequence[str]], Exit]
    """Takes its arguments; its docstring says what it does."""


COMMANDS = {
    "extract": Command("RECIPE", extract),
    "merge": Command("SHARD ...", merge),
    "inspect": Command("FILE", inspect),
    "fuse": Command("RECIPE", fuse),
    "benchmark": Command("RUN|RECIPE", benchmark),
    "compare": Command("RUN RUN ...", compare),
    "bakeoff": Command("RECIPE", bakeoff),
    "classify": Command("METHOD RUN", classify),
    "diagnose": Command("RUN", diagnose),
    "cka": Command("FILE FILE ...", cka),
    "curves": Command("RUN ...", curves),
    "search": Command("QUERY", search),
    "encoders": Command("", encoders),
    "check-encoder": Command("NAME", check_encoder),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; bad input ends in one line on stderr, never in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _dispatch(arguments)
    except TooManyFailures as stop:
        _fail(str(stop), Exit.TOO_MANY_FAILURES)
    except Stopped as stop:
        _fail(str(stop), Exit.STOPPED)
    except FusemixError as error:
        _fail(f"error: {error}", Exit.BAD_INPUT)
    except KeyboardInterrupt:
        _fail("stopped; run the same command to go on", Exit.STOPPED)
    except BrokenPipeError:
        # The reader of our output is gone; point stdout elsewhere so that its final flush is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.UNEXPECTED)
    except OSError as error:
        if error.errno not in _OF_THE_PLACE:
            raise
        remedy = "free some space" if error.errno in _FULL else "choose another --root or --run"
        _fail(f"error: {error.filename or 'a file'}: {error.strerror}; {remedy}", Exit.BAD_INPUT)
    if code is not Exit.COMPLETE:
        sys.exit(code)


def _dispatch(arguments: list[str]) -> Exit:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(shutil.get_terminal_size().columns))
        return Exit.COMPLETE
    if arguments[0] == "--version":
        from fusemix import __version__

        print(f"fusemix {__version__}")
        return Exit.COMPLETE
    if arguments[0] not in COMMANDS:
        raise FusemixError(f"unknown command {arguments[0]!r}: {nearest(arguments[0], COMMANDS)}")
    return COMMANDS[arguments[0]].run(arguments[1:])


def _overview(width: int) -> str:
    def block(text: str, first: str = "", indent: int = 0) -> str:
        return fill(text, max(width, 40), initial_indent=first, subsequent_indent=" " * indent)

    lines = [
        "usage: fusemix COMMAND ...",
        "",
        block("One joint space from frozen encoders, and what it is worth."),
        "",
    ]
    for name, command in COMMANDS.items():
        lines.append(block(summary(command.run.__doc__), f"  {f'{name} {command.arguments}':<20} ", 23))
    recipes = ", ".join(packaged_recipes())
    lines += ["", block(f"recipes: {recipes}, or a YAML file of your own", indent=9), "", "exit codes:"]
    lines += [block(code.meaning, f"{code.value:>5}  ", 7) for code in Exit]
    lines += ["", block("fusemix COMMAND --help lists the options of a command")]
    return "\n".join(lines)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, code: Exit) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
