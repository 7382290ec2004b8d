"""Benchmarks of bayesjx: one module per claim, one harness for all.

`python -m benchmarks list` names them, `python -m benchmarks run NAME` measures one. How to write
one is in `benchmarks/README.md`.
"""

from benchmarks._declare import (
    Benchmark as Benchmark,
    Figure as Figure,
    Target as Target,
)
from benchmarks._process import (
    Fresh as Fresh,
    in_fresh_process as in_fresh_process,
    Unavailable as Unavailable,
)
from benchmarks._report import Report as Report
from benchmarks._stats import median as median, paired_ratio as paired_ratio
from benchmarks._timing import (
    compare as compare,
    compare_compilation as compare_compilation,
    Comparison as Comparison,
    compiled_memory as compiled_memory,
    in_turn as in_turn,
)
from benchmarks._worker import (
    run_worker as run_worker,
    serve as serve,
    Worker as Worker,
    WorkerError as WorkerError,
)

# Name on the command line -> module that holds its `BENCHMARK`. The module is imported when it is
# listed or run, so it must not import jax (or anything that does) at its top.
MODULES = {
    "all-badinput": "benchmarks.all_badinput",
    "all-import": "benchmarks.all_import",
    "all-refit": "benchmarks.all_refit",
    "all-repeat": "benchmarks.all_repeat",
    "all-suite": "benchmarks.all_suite",
    "all-summary": "benchmarks.all_summary",
    "am-dt": "benchmarks.amortized.distribution_transformer",
    "am-mpnp": "benchmarks.amortized.neural_processes",
    "am-martingale": "benchmarks.amortized.martingale",
    "am-niw": "benchmarks.amortized.niw",
    "am-pfn-cache": "benchmarks.amortized.cache",
    "am-pfn-gp": "benchmarks.amortized.gaussian_process",
    "am-pfn-hyper": "benchmarks.amortized.hyper",
    "am-pfn-tabular": "benchmarks.amortized.tabular",
    "am-sbc": "benchmarks.diagnostics.sbc",
    "bnn-funcprior": "benchmarks.bnn.funcprior",
    "bnn-ssvi": "benchmarks.bnn.ssvi",
    "bnn-laplace": "benchmarks.bnn.laplace",
    "bnn-turbo": "benchmarks.bnn.turbo",
    "gp-exact": "benchmarks.gp.exact",
    "gp-grid": "benchmarks.gp.grid",
    "gp-svgp": "benchmarks.gp.svgp",
    "gp-tight": "benchmarks.gp.tight",
    "gp-uci": "benchmarks.gp.uci",
    "ops-kron": "benchmarks.ops.kron",
    "ops-lower": "benchmarks.ops.lower",
    "ops-masked": "benchmarks.ops.masked",
    "ops-sparse": "benchmarks.ops.sparse",
    "sbl-classic": "benchmarks.sbl.classic",
    "sbl-krosbl": "benchmarks.sbl.kron",
    "sbl-priors": "benchmarks.sbl.priors",
    "sbl-prosper": "benchmarks.sbl.prosper",
    "ssm-approx": "benchmarks.ssm.likelihoods",
    "ssm-float32": "benchmarks.ssm.single",
    "ssm-loglik": "benchmarks.ssm.loglik",
    "ssm-memory": "benchmarks.ssm.memory",
    "ssm-nuts": "benchmarks.ssm.carbon",
    "vi-air": "benchmarks.vi.air",
    "vi-bam": "benchmarks.vi.bam",
    "vi-bounds": "benchmarks.vi.bounds",
    "vi-collapse": "benchmarks.vi.collapse",
    "vi-default": "benchmarks.vi.default",
    "vi-overhead": "benchmarks.vi.overhead",
    "vi-peers": "benchmarks.vi.peers",
    "vi-reference": "benchmarks.vi.reference",
    "vi-unbiased": "benchmarks.vi.unbiased",
    "vi-variance": "benchmarks.vi.variance",
}
