"""Execute notebooks/*.py (percent format) into docs/notebooks/*.ipynb; fail if a cell fails.

A notebook runs again when its text, a source file of the library or `BAYESJX_FAST` changed.
"""

import hashlib
import multiprocessing
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "docs" / "notebooks"
SECONDS_PER_CELL = 600


def digest(notebook: Path) -> str:
    """Changes whenever the outputs of the notebook may have changed."""
    state = hashlib.sha256(os.environ.get("BAYESJX_FAST", "").encode())
    library = sorted((ROOT / "bayesjx").rglob("*.py"))
    for path in [notebook, ROOT / "pyproject.toml", *library]:
        state.update(path.read_bytes())
    return state.hexdigest()


def execute(source: Path) -> str | None:
    """Execute one notebook if needed, and return what went wrong."""
    target = EXECUTED / source.with_suffix(".ipynb").name
    current = digest(source)
    if target.exists():
        metadata = nbformat.read(target, as_version=4).metadata
        if metadata.get("bayesjx", {}).get("digest") == current:
            print(f"{source.name}: unchanged", flush=True)
            return None
    start = time.perf_counter()
    notebook = jupytext.read(source)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(SOURCES)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return f"{source.name} failed:\n{error}"
    notebook.metadata["bayesjx"] = {"digest": current}
    nbformat.write(notebook, target)
    print(f"{source.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return None


def compile_quickly() -> None:
    """Tell the kernels to optimise little: small sizes are mostly compilation.

    As in `tests/conftest.py`.
    """
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
            " --xla_cpu_parallel_codegen_split_count=1"
        )


def main() -> int:
    EXECUTED.mkdir(parents=True, exist_ok=True)
    if os.environ.get("BAYESJX_FAST") == "1":
        compile_quickly()
    sources = sorted(SOURCES.glob("*.py"))
    for stale in {path.stem for path in EXECUTED.glob("*.ipynb")} - {path.stem for path in sources}:
        (EXECUTED / f"{stale}.ipynb").unlink()
    with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        failures = [failure for failure in pool.imap(execute, sources) if failure]
    if failures:
        print(*failures, sep="\n", file=sys.stderr)
    print(f"notebooks: {len(sources) - len(failures)} of {len(sources)} ran")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
