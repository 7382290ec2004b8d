"""Options of XLA that can be set only before it starts."""

from __future__ import annotations

import os

import jax

FUSE_LOOPS = "xla_cpu_small_while_loop_byte_threshold"
LARGEST_BODY = 100_000  # bytes
EXTRA = "--xla_backend_extra_options="


def configure_cpu() -> None:
    """Makes XLA compile loops with small bodies to single kernels on CPUs.

    By default, a loop whose body handles more than about a kilobyte is run operation by operation,
    which costs microseconds each; filters and samplers with small states then spend most of their
    time between operations, and run 7 to 100 times faster with this option. Larger bodies are not
    affected. It adds an option to the environment variable `XLA_FLAGS`, of this process and those
    that it starts. Nothing in bayesjx calls this by itself.

    Raises:
        RuntimeError: JAX has computed something, so that XLA has read its options.
    """
    if _has_started():
        raise RuntimeError(
            "configure_cpu must be called before the first computation: XLA has read its options"
        )
    flags = os.environ.get("XLA_FLAGS", "")
    if FUSE_LOOPS in flags:
        return
    option = f"{FUSE_LOOPS}={LARGEST_BODY}"
    others = [flag for flag in flags.split() if not flag.startswith(EXTRA)]
    extra = [flag.removeprefix(EXTRA) for flag in flags.split() if flag.startswith(EXTRA)]
    os.environ["XLA_FLAGS"] = " ".join([*others, EXTRA + ",".join([*extra, option])])


def _has_started() -> bool:
    """Whether backends of JAX exist; it refuses another number of devices from then on."""
    devices = jax.config.jax_num_cpu_devices  # ty: ignore
    try:
        jax.config.update("jax_num_cpu_devices", devices + 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", devices)
    return False
