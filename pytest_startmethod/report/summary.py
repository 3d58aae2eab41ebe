"""Words the report header, the terminal summary and the Markdown report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.record import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_startmethod.report.results import Result, Results, Row
    from pytest_startmethod.selection.table import Selection

MAX_DIFFERING = 20
"""How many tests are shown whose outcome differs."""


UNPROVEN = "passed, and used no process of the start method"
PIPE = "\\|"  # in a cell of a table


class Line(NamedTuple):
    """A line of the terminal; with a `separator`, a separator line."""

    text: str
    markup: dict[str, bool]
    separator: str = ""


def header(selection: Selection) -> str:
    """Return the line of the report header: start methods that can be used, and that can't."""
    missing = [name for name in selection.selected if name not in selection.methods.supported]
    unusable = {*missing, *selection.unavailable}
    usable = [name for name in selection.selected if name not in unusable]
    notes = [f"platform default: {selection.methods.platform_default}"]
    if missing:
        notes.append(f"not supported: {', '.join(missing)}")
    notes.extend(f"{name} unavailable: {why}" for name, why in selection.unavailable.items())
    return f"start methods: {', '.join(usable) or 'none'} ({'; '.join(notes)})"


def lines(results: Results, verbosity: int, width: int) -> Iterator[Line]:
    """Return the lines of the terminal summary; none if no test ran under a start method."""
    table, differing = results.table(), results.differing()
    listed = notes(results)
    if not (table or listed) or (verbosity < 0 and not differing):
        return
    yield Line("start methods", {}, "=")
    if verbosity >= 0:
        if table:
            yield from _table(table)
        for note in listed:
            yield from _listed(note, verbosity, width)
    if differing:
        yield Line(f"outcome depends on {results.depends_on}", {}, "-")
        for runs in differing[:MAX_DIFFERING]:
            yield from _differing(runs, width)
        if len(differing) > MAX_DIFFERING:
            yield Line(f"... and {len(differing) - MAX_DIFFERING} more", {})


def _table(rows: Iterable[Row]) -> Iterator[Line]:
    rows = list(rows)
    columns = [
        name for name in OUTCOMES if name != "xfailed" or any(r.outcomes[name] for r in rows)
    ]
    name_width = max(len(row.start_method) for row in rows)
    titles = "".join(f"{title:>9}" for title in columns)
    yield Line(f"{'':{name_width}}{titles}  processes     time", {})
    for row in rows:
        counts = "".join(f"{row.outcomes[column] or '':>9}" for column in columns)
        text = f"{row.start_method:{name_width}}{counts}{row.processes:>11}{row.seconds:>8.2f}s"
        yield Line(text, {"red": True} if row.outcomes["failed"] else {"green": True})


class Note(NamedTuple):
    """A remark on runs that are no differences."""

    text: str
    nodeids: tuple[str, ...]
    command: str = ""


def notes(results: Results) -> list[Note]:
    """Return the remarks on runs that are no differences."""
    found: dict[str, list[str]] = {}
    for result in results.unproven():
        found.setdefault(UNPROVEN, []).append(result.run.nodeid)
    for result in results.made_before():
        made_under, method = result.run.made_under, result.run.start_method
        text = f"lock or queue made under {made_under}: run --start-method={method} alone"
        found.setdefault(text, []).append(result.run.nodeid)
    for result in results.not_alone():
        ends = "fails" if result.outcome == "failed" else "is skipped"
        text = f"doesn't run alone: under {results.selected[0]} it {ends} there, too"
        found.setdefault(text, []).append(result.run.nodeid)
    others = results.others()
    if number := sum(result.run.other_processes for result in others):
        text = f"{number} process{'es' if number > 1 else ''} by a start method that the test chose"
        found[text] = [result.run.nodeid for result in others]
    not_run = results.notes.not_run
    return [
        *(Note(text, tuple(nodeids)) for text, nodeids in found.items()),
        *(Note(f"not run under {n.start_method}: {n.reason}", n.tests, n.command) for n in not_run),
    ]


def _listed(listed: Note, verbosity: int, width: int) -> Iterator[Line]:
    nodeids = listed.nodeids
    number = "1 run" if len(nodeids) == 1 else f"{len(nodeids)} runs"
    note = f"({number}{'' if verbosity > 0 else ', -v names them'})"
    for part in _on_one_line(listed.text, note, " ", width):
        yield Line(part, {"yellow": True})
    if listed.command:  # in full: users type it
        yield Line(f"    {listed.command}", {})
    if verbosity > 0:
        yield from (Line(f"    {_end(nodeid, width - 4)}", {}) for nodeid in nodeids)


def _differing(runs: Mapping[str, Result], width: int) -> Iterator[Line]:
    for part in _on_one_line(_test(runs), _outcomes(runs), "    ", width):
        yield Line(part, {"bold": True})
    failed = _failed(runs)
    if failed.last_line:
        yield Line(_cut(f"    {failed.last_line}", width), {"red": True})
    if failed.run.hint:
        yield Line(_cut(f"    {failed.run.hint}", width), {})


def _on_one_line(first: str, second: str, between: str, width: int) -> list[str]:
    """Return both on one line if they fit, else on two."""
    both = f"{first}{between}{second}"
    return [both] if len(both) <= width else [_end(first, width), _cut(f"    {second}", width)]


def _test(runs: Mapping[str, Result]) -> str:
    return next(iter(runs.values())).run.test


def _failed(runs: Mapping[str, Result]) -> Result:
    return next(result for result in runs.values() if result.outcome == "failed")


def _outcomes(runs: Mapping[str, Result], between: str = "    ") -> str:
    names: dict[str, list[str]] = {}
    for name, result in runs.items():
        names.setdefault(result.outcome, []).append(name)
    return between.join(f"{outcome}: {', '.join(of)}" for outcome, of in names.items())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _end(text: str, width: int) -> str:
    """Cut off the beginning of an id that is too long: its end tells more."""
    return text if len(text) <= width else f"...{text[3 - width :]}"


def markdown(results: Results) -> str:
    """Return the summary as Markdown."""
    rows = [
        f"| {row.start_method} | {' | '.join(str(row.outcomes[column]) for column in OUTCOMES)} "
        f"| {row.processes} | {row.seconds:.2f} s |"
        for row in results.table()
    ]
    text = [
        "## Start methods",
        "",
        f"| | {' | '.join(OUTCOMES)} | processes | time |",
        "|---|" + "--:|" * (len(OUTCOMES) + 2),
        *rows,
    ]
    for title, nodeids, command in notes(results):
        runs = [f"- {_code(nodeid)}" for nodeid in nodeids]
        by_hand = [_code(command), ""] if command else []
        text += ["", f"### {title[0].upper()}{title[1:]}", "", *by_hand, *runs]
    differing = results.differing()
    if differing:
        text += [
            "",
            f"### Outcome depends on {results.depends_on}",
            "",
            "| test | outcome | |",
            "|---|---|---|",
        ]
    for by_method in differing:
        failed = _failed(by_method)
        why = "<br>".join(_code(part) for part in (failed.last_line, failed.run.hint) if part)
        row = (_code(_test(by_method)), _outcomes(by_method, "<br>"), why)
        text.append(f"| {' | '.join(cell.replace('|', PIPE) for cell in row)} |")
    return "\n".join(text) + "\n"


def _code(text: str) -> str:
    """Return a text as code: else Markdown hides ``<locals>`` and makes ``__main__`` bold."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"
