"""Draw the summary that the README shows: ``python .github/picture.py [--check]``."""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.color import Color
from rich.console import Console
from rich.padding import Padding
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent
README = (HERE.parent / "README.md").read_text(encoding="utf-8")

FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
SESSION = re.compile(
    r"```console\n\$ (?P<command>pytest --tb=no --start-method=all .*?)\n(?P<output>.*?)```",
    re.DOTALL,
)
TIME = re.compile(r" *\d+\.\d\ds")
# What depends on the machine, and pytest's own list: where it has colours its lines are too long.
LEFT_OUT = re.compile(
    r"=+ test session|platform |rootdir: |configfile: |plugins: |=+ short test summary|FAILED "
)
# What Python warns of by chance: of a pool's threads that end a little later than the pool when the
# next process forks, and where the garbage collector finds a lock while another one is made.
BY_CHANCE = (
    *("-W", "ignore:This process:DeprecationWarning"),
    *("-W", "ignore:ResourceTracker called reentrantly:UserWarning"),
)
COLUMNS = 80
MARGIN = 2

# As GitHub has them: background, foreground, black, red, green, yellow, blue, magenta, cyan, white.
THEMES = {
    "light": "#ffffff #1f2328 #1f2328 #cf222e #1a7f37 #9a6700 #0969da #8250df #1b7c83 #59636e",
    "dark": "#0d1117 #e6edf3 #484f58 #ff7b72 #3fb950 #d29922 #58a6ff #bc8cff #39c5cf #b1bac4",
}

# Rich's own loads a font, which GitHub blocks, draws a window's buttons, and clips lines that fit.
FORMAT = """\
<svg class="{unique_id}" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id} {{ font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }}
.{unique_id} text {{ clip-path: none }}
.{unique_id} rect {{ stroke: #8888 }}
.{unique_id} circle {{ display: none }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, 24)">
{matrix}
</g>
</svg>
"""


def run(command: str, files: dict[str, str]) -> str:
    """Run pytest as a terminal with colours shows it."""
    options = ("--color=yes", "-p", "no:cacheprovider", "-p", "no:xdist", *BY_CHANCE)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        completed = subprocess.run(
            [sys.executable, "-m", *command.split(), *options],
            cwd=folder,
            env={**os.environ, "COLUMNS": str(COLUMNS), "CI": ""},  # in CI pytest shortens nothing
            capture_output=True,
            text=True,
        )
    if completed.returncode != pytest.ExitCode.TESTS_FAILED:
        sys.exit(completed.stdout + completed.stderr)
    return completed.stdout


def draw(name: str, output: str) -> str:
    """Draw the terminal in the colours of a theme."""
    background, foreground, *colors = (
        Color.parse(color).get_truecolor() for color in THEMES[name].split()
    )
    console = Console(record=True, file=io.StringIO(), width=COLUMNS + 2 * MARGIN)
    console.print(Padding(Text.from_ansi(output), (0, MARGIN)))
    return console.export_svg(
        title="",
        theme=TerminalTheme(background, foreground, [*colors]),
        code_format=FORMAT,
        font_aspect_ratio=0.6,
        unique_id=f"summary-{name}",
    )


def main() -> None:
    """Write the pictures, or say that they are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where it would")
    check = parser.parse_args().check

    [session] = SESSION.finditer(README)
    shown_before = FILE.finditer(README, 0, session.start())
    printed = run(session["command"], {file["name"]: file["text"] for file in shown_before})
    lines = (
        line for line in printed.splitlines() if not LEFT_OUT.match(Text.from_ansi(line).plain)
    )
    # Times differ from run to run, and a picture that doesn't shall stay: it has the README's.
    times = iter(TIME.findall(session["output"]))
    output = TIME.sub(lambda time: next(times, time[0]), "\n".join(lines))

    for name in THEMES:
        path = HERE / f"summary-{name}.svg"
        picture = draw(name, f"\x1b[1m$ {session['command']}\x1b[0m\n{output}")
        if not check:
            path.write_text(picture, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != picture:
            sys.exit(f"{path.name} is out of date, draw it: {sys.executable} {sys.argv[0]}")


if __name__ == "__main__":
    main()
