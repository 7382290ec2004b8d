#!/usr/bin/env bash
# The tests as other processors compute them: each of XLA's instruction sets with the BLAS kernels of
# its time, the oldest with one thread. Usage: tests/portable.sh PYTEST-COMMAND...
# SETS="AVX2:Haswell:2" runs some of them: instruction set, OpenBLAS kernels, threads.
set -u -o pipefail
failed=()
for set in ${SETS:-SSE4_2:Nehalem:1 AVX2:Haswell:2 AVX512:SkylakeX:2}; do
    IFS=: read -r isa blas threads <<<"$set"
    if [[ $isa == AVX512 ]] && ! grep -q avx512f /proc/cpuinfo; then
        echo "== $isa: left out, this processor has none"
        continue
    fi
    echo "== $isa, $blas, threads: $threads"
    XLA_FLAGS="${XLA_FLAGS:-} --xla_cpu_max_isa=$isa" OPENBLAS_CORETYPE=$blas \
        PJRT_NPROC=$threads OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads \
        "$@" || failed+=("$isa")
done
((${#failed[@]} == 0)) || { echo "== failed: ${failed[*]}"; exit 1; }
