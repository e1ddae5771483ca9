"""A bake-off as tables for 80 columns, and as a page of Markdown to send to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import wrap

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.report import WIDTH, aligned

from .results import BASELINE, COMPARED, COMPARED_AT, Bakeoff, Cell

AT_ONCE = 3
LEVEL = 0.05
_STYLES = (
    "A method called -style is named after a system that uses other data, sizes and schedules: its figures here say"
    " nothing of that system's."
)
_PROTOCOL = (
    "All methods take the same stored latents, training items, validation items and test items. A smaller fraction"
    " lies in the larger ones, and a seed draws the same items for every method. Each method is tuned once for each"
    " fraction, by the mean reciprocal rank of both directions on the validation split, with the first seed; what it"
    " chose then runs with the other seeds too, on all items only once where nothing in it is random. Queries are"
    " averaged over seeds before items are drawn. The test split is read after the choice."
)
Rows = list[list[str]]


def bakeoff_table(result: Bakeoff) -> str:
    """Return R@1 of both directions, the time, and what was chosen, a column for each fraction."""
    fractions = sorted(result.settings.fractions)
    blocks = [_head(result)]
    for first in range(0, len(fractions), AT_ONCE):
        shown = fractions[first : first + AT_ONCE]
        for (title, *heads), *rows in _tables(result, shown):
            blocks.append("\n".join([title, *aligned([["", *heads], *rows])]))
    notes = [line for note in _notes(result) for line in wrap(note, WIDTH, subsequent_indent="  ")]
    return "\n\n".join([*blocks, "\n".join(notes)])


def markdown(result: Bakeoff, figure: str, command: str, machine: Mapping[str, object]) -> str:
    """Return the page.

    Args:
        result: what was found.
        figure: address of the picture, relative to the page.
        command: what repeats it.
        machine: what it was measured with.
    """
    *scores, seconds, chosen = (_marked_down(rows) for rows in _tables(result, sorted(result.settings.fractions)))
    methods = [f"- **{name}**: {about}" for name, about in result.methods.items()]
    told = ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)
    parts = [
        f"# Ways to align frozen latents, on {result.dataset}",
        _head(result).replace("\n", "  \n"),
        f"![R@1 by training items, and seconds, of {', '.join(result.methods)}]({figure})",
        *scores,
        "\n".join(f"- {_escaped(note)}" for note in _notes(result)),
        "## Time",
        seconds,
        "## What validation chose",
        chosen,
        "## Methods",
        "\n".join(methods),
        _STYLES,
        "## How",
        _PROTOCOL,
        f"Machine: {told}.",
        f"```sh\n{command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _head(result: Bakeoff) -> str:
    return (
        f"Bake-off on {result.dataset}, {result.split} split: {result.items:,} items, protocol {result.protocol}\n"
        f"each method tuned on validation over {_count(result.settings.budget, 'configuration')};"
        f" mean of {_count(result.settings.seeds, 'seed')}"
    )


def _tables(result: Bakeoff, fractions: Sequence[float]) -> list[Rows]:
    """Return R@1 of each direction, the seconds, and the chosen configurations."""
    heads = [_fraction(result, fraction) for fraction in fractions]

    def table(title: str, cell: Callable[[Cell], str], label: Callable[[str], str] = str) -> Rows:
        rows = [[title, *heads]]
        rows += [[label(name), *(cell(result.cell(name, part)) for part in fractions)] for name in result.methods]
        return rows

    def label(name: str) -> str:
        return f"{name}: {', '.join(result.cell(name, fractions[0]).chosen)}"

    return [
        *(
            table(f"{direction}, {COMPARED} % by training items", partial(_score, direction))
            for direction in result.directions
        ),
        table("seconds to tune + run", lambda cell: f"{_seconds(cell.tuning_seconds)} + {_seconds(cell.seconds)}"),
        table("chosen", lambda cell: ", ".join(f"{value:g}" for value in cell.chosen.values()), label),
    ]


def _notes(result: Bakeoff) -> list[str]:
    notes = [f"warning: {warning}" for warning in result.warnings]
    for direction in result.directions:
        out, ties = result.left_out[direction], max(cell.tie_rate[direction] for cell in result.cells)
        notes.append(
            f"{direction}: {result.queries[direction]:,} queries"
            + (f" ({out:,} without a right answer left out)" if out else "")
            + f", {result.gallery[direction]:,} gallery rows, chance {100 * result.chance[direction]:.2f} %,"
            f" ties at most {100 * ties:.1f} %"
        )
    compared = sum(len(cell.difference) for cell in result.cells)
    if compared:
        notes.append(
            f"*: differs from {BASELINE} on the same fraction, p < {LEVEL} by paired permutation of items, Holm over"
            f" {_count(compared, 'comparison')}"
        )
    notes.append(f"{COMPARED} is hit@{COMPARED_AT}: whether the first answer is right.")
    return [*notes, "95% intervals by bootstrap over items, given this gallery and these runs."]


def _score(direction: str, cell: Cell) -> str:
    difference = cell.difference.get(direction)
    # A mark of the same width everywhere keeps the columns aligned.
    return _interval(cell.metrics[direction][COMPARED]) + ("*" if difference and difference.p < LEVEL else " ")


def _interval(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _fraction(result: Bakeoff, fraction: float) -> str:
    cell = next(cell for cell in result.cells if cell.fraction == fraction)
    return f"{cell.items:,} ({100 * fraction:g} %)"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _marked_down(rows: Rows) -> str:
    head, *body = ([_escaped(cell.strip()) for cell in row] for row in rows)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def _escaped(text: str) -> str:
    return text.replace("*", r"\*").replace("|", r"\|").replace("_", r"\_")
