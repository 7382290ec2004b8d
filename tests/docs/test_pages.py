"""The pages are true: their Python blocks run in order, and print what the page says they print.

Words are compared always. Numbers are compared as closely as a comment before the block of text
says, which every block with numbers has: `<!-- numbers within 0.1 -->`, or `within 10 %`, or
`within 0.1 and 10 %` for the sum of both, or `as printed` for those that do not depend on rounding.
Seconds are never compared.
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
MADE = "benchmarks.md"  # `make docs` writes it, beside the tests perhaps
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / MADE})]
# Many programs to compile.
SLOW = {"custom-objectives", "fit", "gaussian-processes", "numpyro", "programmable-vi", "sparse"}
BLOCK = re.compile(
    r"(?:^<!-- numbers (as printed|within [^>]*?) -->\n)?^```(python|text)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\b(?:nan|inf)\b)(e[-+]?\d+)?( (s|ms|µs)\b)?")


def skeleton(printed: str) -> list[str]:
    """The words of a text; its numbers, which differ between machines, become `#`."""
    return re.sub(r"(# ?)+", "# ", NUMBER.sub(" # ", printed)).split()


def numbers(printed: str) -> list[float]:
    """The numbers of a text but for times."""
    return [float(found[0]) for found in NUMBER.finditer(printed) if not found[3]]


def closeness(comment: str) -> dict[str, float]:
    """Arguments of `assert_allclose` from what a comment says."""
    found = {"atol": 0.0, "rtol": 0.0}
    if comment == "as printed":
        return found
    for part in comment.removeprefix("within ").split(" and "):
        number, percent = part.removesuffix(" %"), part.endswith(" %")
        found["rtol" if percent else "atol"] = float(number) / (100 if percent else 1)
    return found


def assert_same(printed: str, source: str, comment: str | None) -> None:
    message = f"the page should say:\n{printed}"
    assert skeleton(printed) == skeleton(source), message
    want = numbers(source)
    if want:
        assert comment, "no comment says how closely the numbers of this block are compared"
        np.testing.assert_allclose(
            numbers(printed), want, **closeness(comment), err_msg=f"{comment}; {message}"
        )


def test_numbers_are_compared_as_closely_as_a_page_says():
    block = BLOCK.search("<!-- numbers within 10 % -->\n```text\nat 1.05 ± 0.1, 3.2 ms\n```\n")
    comment, _, source = block.groups()
    assert_same("at 1.1 ± 0.105, 9.9 ms", source, comment)
    assert_same("at 1.3 ± 0.12, 3.2 ms", source, "within 0.01 and 30 %")
    for other in (comment, "within 0.2 and 1 %", "as printed"):
        with pytest.raises(AssertionError, match="the page should say"):
            assert_same("at 1.3 ± 0.1, 3.2 ms", source, other)
    with pytest.raises(AssertionError, match="how closely"):
        assert_same(source, source, None)
    assert_same("in 3.3 ms", "in 3.2 ms", None)


@pytest.mark.timeout(900)
@pytest.mark.compiles(3000, "the blocks of a page run one by one, as its reader would run them")
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
            comment, language, source = block.groups()
            if language == "text":
                assert_same(printed, source, comment)
                continue
            line = text.count("\n", 0, block.start(3))
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * line + source, page, "exec"), vars(module))
            printed = output.getvalue()
