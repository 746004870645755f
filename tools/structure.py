"""Print the package in a line a file, by the first line of each docstring: `python -m tools.structure [FOLDER]`."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1] / "fashion_pipeline"


def lines(folder: Path, depth: int = 0) -> list[str]:
    """One line for each file and folder below a folder."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        indent = "  " * depth
        if path.is_dir() and any(path.rglob("*.py")):
            found += [f"{indent}{path.name}/", *lines(path, depth + 1)]
        elif path.suffix == ".py" and path.name != "__init__.py":
            told = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            found.append(f"{indent}{path.name:{28 - len(indent)}} {told}")
    return found


if __name__ == "__main__":
    print("\n".join(lines(ROOT / sys.argv[1] if len(sys.argv) > 1 else ROOT)))
