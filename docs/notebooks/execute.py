"""Run a marimo notebook on the catalogue of LAMPLIGHT_DATA and write what it shows beside it: Markdown with pictures.

    python docs/notebooks/execute.py docs/notebooks/city_day.py [--out FOLDER]

marimo's own export to HTML loads its page from a server elsewhere; Markdown is shown by any forge and by any editor.
"""

import argparse
import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure

from contracts import settings

mpl.use("Agg")
MAX_ROWS = 20


def cells(source: str) -> Iterator[str]:
    """The code of each cell that is to be shown, "" of a hidden one, in the notebook's order."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        decorator = node.decorator_list[0]
        is_hidden = isinstance(decorator, ast.Call) and any(key.arg == "hide_code" for key in decorator.keywords)
        body = node.body[:-1]  # without the return
        first, last = body[0].lineno - 1, body[-1].end_lineno
        lines = [line.removeprefix("    ") for line in source.splitlines()[first:last]]
        yield "" if is_hidden else "\n".join(lines)


def shown(output: Any, picture: Path) -> str:
    """An output as Markdown; a figure is saved as `picture`. Raises TypeError for a kind that no notebook has yet."""
    if output is None:
        return ""
    if isinstance(output, Figure):
        output.savefig(picture, dpi=100, metadata={"Software": None})
        return f"![{output.get_suptitle() or output.axes[0].get_title()}]({picture.name})".replace("\n", ", ")
    if isinstance(output, pl.DataFrame):
        rows = [output.columns, ["---"] * output.width, *output.head(MAX_ROWS).iter_rows()]
        return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows)
    if hasattr(output, "_repr_markdown_"):
        return str(output._repr_markdown_())
    raise TypeError(f"a cell shows {type(output)}: teach execute.py to write it")


def execute(notebook: Path, folder: Path) -> Path:
    """Run a notebook and write {name}.md with its pictures to the folder; the Markdown file."""
    spec = importlib.util.spec_from_file_location(notebook.stem, notebook)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs, _ = module.app.run()
    parts = []
    pairs = zip(cells(notebook.read_text(encoding="utf-8")), outputs, strict=True)
    for number, (code, output) in enumerate(pairs):
        if code:
            parts.append(f"```python\n{code}\n```")
        if text := shown(output, folder / f"{notebook.stem}_{number}.png"):
            parts.append(text)
    written = folder / f"{notebook.stem}.md"
    written.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return written


def main(argv: list[str]) -> int:
    """Execute the notebooks of the command line; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("notebook", type=Path, nargs="+")
    options.add_argument("--out", type=Path, help="where to write; default: beside the notebook")
    given = options.parse_args(argv)
    for path in given.notebook:
        print(execute(path, given.out or path.parent))
    return 0


if __name__ == "__main__":
    settings.run(main)
