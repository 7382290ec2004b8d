"""What every sub-package builds on: the algorithm protocol, the fit loop and its results."""

from bayesjx._core._algorithm import Algorithm as Algorithm
from bayesjx._core._batched import (
    cho_solve as cho_solve,
    cholesky_each as cholesky_each,
    each as each,
    eigenvalues as eigenvalues,
    eigh as eigh,
    in_turn_under_vmap as in_turn_under_vmap,
    inverse_tril as inverse_tril,
    solve_triangular as solve_triangular,
    solve_tril_each as solve_tril_each,
)
from bayesjx._core._callbacks import CallbackInfo as CallbackInfo, stop_when_flat as stop_when_flat
from bayesjx._core._checkpoint import (
    CheckpointError as CheckpointError,
    CheckpointWriteError as CheckpointWriteError,
    describe_checkpoint as describe_checkpoint,
    load_checkpoint as load_checkpoint,
)
from bayesjx._core._checks import (
    check_flag as check_flag,
    checked_finite as checked_finite,
    number_array as number_array,
    refuse_where as refuse_where,
    whole_number as whole_number,
)
from bayesjx._core._cholesky import (
    default_jitter as default_jitter,
    Factor as Factor,
    needed_jitter as needed_jitter,
    safe_cholesky as safe_cholesky,
)
from bayesjx._core._chunks import (
    map_chunks as map_chunks,
    num_data as num_data,
    run_traced as run_traced,
    sum_chunks as sum_chunks,
)
from bayesjx._core._configure import configure_cpu as configure_cpu, FUSE_LOOPS as FUSE_LOOPS
from bayesjx._core._datatree import to_datatree as to_datatree
from bayesjx._core._eager import (
    compiled as compiled,
    compiled_for as compiled_for,
    in_chunks as in_chunks,
)
from bayesjx._core._failures import failures_are_nan as failures_are_nan, on_failure as on_failure
from bayesjx._core._fit import fit as fit
from bayesjx._core._gradient import (
    gradient_algorithm as gradient_algorithm,
    GradientInfo as GradientInfo,
    GradientState as GradientState,
    trained as trained,
)
from bayesjx._core._identity import (
    ArraySpec as ArraySpec,
    forget_programs as forget_programs,
    Identity as Identity,
    WeakCache as WeakCache,
)
from bayesjx._core._l_bfgs import Descent as Descent, l_bfgs as l_bfgs
from bayesjx._core._numerics import (
    nan_if_negative as nan_if_negative,
    safe_sqrt as safe_sqrt,
)
from bayesjx._core._parameters import (
    check_known as check_known,
    constrained_field as constrained_field,
    from_real as from_real,
    is_valid as is_valid,
    known as known,
    known_field as known_field,
    learnable as learnable,
    nan_unless_valid as nan_unless_valid,
    to_real as to_real,
    unconstrained as unconstrained,
)
from bayesjx._core._program import automatic as automatic, Step as Step
from bayesjx._core._result import FitResult as FitResult, NonFiniteError as NonFiniteError
from bayesjx._core._results import (
    first_of as first_of,
    is_successful as is_successful,
    RESULTS as RESULTS,
    thrown as thrown,
)
from bayesjx._core._traced import traced as traced, TracedFunction as TracedFunction
from bayesjx._core._tree import (
    check_key as check_key,
    is_array as is_array,
    path_name as path_name,
    tree_paths as tree_paths,
)
