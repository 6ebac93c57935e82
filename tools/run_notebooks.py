"""Runs the notebooks of `examples` and keeps what they printed and drew: `make notebooks`.

Names of notebooks as arguments run those alone. Pictures are kept with few colours, and what is
different in every run, such as when a cell ran, is left out.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 600  # that a cell may take
COLORS = 96  # of a picture: a third of the bytes, and no difference to be seen


def executed(path: Path) -> Any:
    """The notebook in a file, run from its first cell to its last."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute(cwd=str(path.parent))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [_small(output) for output in _joined(cell.outputs)]
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec}
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs in which neighbouring pieces of one stream are one."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            joined.append(output)
    return joined


def _small(output: Any) -> Any:
    """The same output; a picture has few colours."""
    data = output.get("data", {})
    if "image/png" in data:
        picture, file = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))), io.BytesIO()
        picture.convert("RGB").quantize(COLORS).save(file, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
    return output


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(EXAMPLES.glob("*.ipynb")):
        notebook = executed(path)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
