"""The pages are true: their Python blocks run in order, and print what the page says they print.

Words are compared always. Numbers are compared where a comment before the block of text says how
closely, `<!-- numbers within 0.1 -->` or `<!-- numbers within 10 % -->`; seconds never are.
"""

import contextlib
import io
import re
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Many programs to compile.
SLOW = {"custom-objectives", "fit", "gaussian-processes", "numpyro", "programmable-vi"}
BLOCK = re.compile(
    r"(?:^<!-- numbers within ([\d.]+)( %)? -->\n)?^```(python|text)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|nan|inf)(e[-+]?\d+)?( (s|ms|µs)\b)?")


def skeleton(printed: str) -> list[str]:
    """The words of a text; its numbers, which differ between machines, become `#`."""
    return re.sub(r"(# ?)+", "# ", NUMBER.sub(" # ", printed)).split()


def numbers(printed: str) -> list[float]:
    """The numbers of a text but for times."""
    return [float(found[0]) for found in NUMBER.finditer(printed) if not found[3]]


def assert_same(printed: str, source: str, within: str | None, percent: str | None) -> None:
    message = f"the page should say:\n{printed}"
    assert skeleton(printed) == skeleton(source), message
    if within is None:
        return
    got, want = numbers(printed), numbers(source)
    tolerance = {"rtol": float(within) / 100} if percent else {"rtol": 0, "atol": float(within)}
    np.testing.assert_allclose(got, want, **tolerance, err_msg=message)


def test_numbers_are_compared_where_a_page_says_how_closely():
    block = BLOCK.search("<!-- numbers within 10 % -->\n```text\nat 1.05 ± 0.1, 3.2 ms\n```\n")
    within, percent, _, source = block.groups()
    assert_same("at 1.1 ± 0.105, 9.9 ms", source, within, percent)
    with pytest.raises(AssertionError, match="the page should say"):
        assert_same("at 1.3 ± 0.1, 3.2 ms", source, within, percent)
    assert_same("at 1.3 ± 0.1, 3.2 ms", source, None, None)


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
            within, percent, language, source = block.groups()
            if language == "text":
                assert_same(printed, source, within, percent)
                continue
            line = text.count("\n", 0, block.start(4))
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * line + source, page, "exec"), vars(module))
            printed = output.getvalue()
