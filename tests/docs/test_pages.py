"""The pages are true: their Python blocks run in order, and print what the page says they print."""

import contextlib
import io
import re
import sys
import types
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Many programs to compile.
SLOW = {"custom-objectives", "fit", "gaussian-processes", "numpyro", "programmable-vi"}
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|nan|inf)(e[-+]?\d+)?( (s|ms|µs)\b)?")


def skeleton(printed: str) -> list[str]:
    """The words of a text; its numbers, which differ between machines, become `#`."""
    return re.sub(r"(# ?)+", "# ", NUMBER.sub(" # ", printed)).split()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in PAGES],
)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    module = types.ModuleType("page_" + page.stem.replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    printed = ""
    with jax.enable_x64(False):  # as a reader has it
        for block in BLOCK.finditer(text):
            language, source = block.groups()
            if language == "text":
                assert skeleton(printed) == skeleton(source), f"the page should say:\n{printed}"
                continue
            line = text.count("\n", 0, block.start(2))
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * line + source, page, "exec"), vars(module))
            printed = output.getvalue()
