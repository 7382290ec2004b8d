"""Posterior collapse: what theory predicts of linear VAEs, beside what training finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

TARGETS = (
    Target(
        "vae_error", "<", 0.02, quick=0.1, meaning="linear VAE: worst error of a singular value"
    ),
    Target("cvae_error", "<", 0.02, quick=0.1, meaning="linear conditional VAE: the same"),
    Target("hvae_error", "<", 0.02, quick=None, meaning="linear two-level VAE: the same"),
    Target(
        "miscounted", "==", 0, meaning="collapsed dimensions that theory and training disagree on"
    ),
    Target("relu_vae", ">", 0.9, quick=None, meaning="ReLU VAE: rank correlation of active units"),
    Target("relu_cvae", ">", 0.9, quick=None, meaning="ReLU conditional VAE: the same"),
)

# Next to a threshold the loss is flat and a small singular value is all noise, which a short run
# does not average out: its settings lie between thresholds, and its steps are small ones.
QUICK_STEPS, QUICK_RATE, QUICK_BETAS, QUICK_CVAE_BETAS = 2500, 0.03, (2.7, 4.0), (0.8,)
BETAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# beta1, beta2, sigma1: each regime of the theory, and all of z2 collapsed
LEVELS = ((2.0, 1.0, 1.0), (1.0, 0.9, 0.5), (2.0, 0.5, 0.5), (0.5, 2.0, 0.5))
MARGIN = 0.01  # a dimension counts as used if its strength is this far above the threshold


@dataclasses.dataclass
class _Tally:
    """Compares spectra, setting by setting."""

    rows: list[list[Any]] = dataclasses.field(default_factory=list)
    errors: list[float] = dataclasses.field(default_factory=list)
    miscounted: int = 0

    def add(self, setting: str, pairs: Any, noise: float) -> None:
        """`pairs` of measured and predicted singular values, the first ones of the decoder."""
        import numpy as np

        worst = 0.0
        for measured, predicted in pairs:
            predicted = np.asarray(predicted, float)
            used = predicted > 0
            gap = np.abs(measured[: len(predicted)] - predicted)[used]
            worst = max(worst, float(np.max(gap / predicted[used], initial=0.0)))
        measured, predicted = pairs[0]
        found, expected = int(np.sum(measured**2 > MARGIN * noise)), int(np.sum(predicted > 0))
        size = len(predicted)
        self.rows.append([setting, size - expected, size - found, worst])
        self.errors.append(worst)
        self.miscounted += abs(found - expected)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Train each model at each setting, and compare."""
    images = _digits(400 if quick else None)
    tallies = {"vae": _vae(images, quick, report), "cvae": _cvae(images, quick)}
    if not quick:
        tallies["hvae"] = _hvae(images)
    titles = {"vae": "Linear VAE", "cvae": "Linear conditional VAE", "hvae": "Linear two-level VAE"}
    for name, tally in tallies.items():
        header = ["setting", "collapsed, theory", "collapsed, trained", "worst relative error"]
        report.table(titles[name], header, tally.rows)
    figures = {f"{name}_error": max(tally.errors) for name, tally in tallies.items()}
    figures["miscounted"] = sum(tally.miscounted for tally in tallies.values())
    return figures if quick else {**figures, **_relu(images, report)}


def _digits(number: int | None) -> Any:
    """The 8 x 8 digits, centred, in units of a fifth of a grey level: shape (n, 64)."""
    import jax.numpy as jnp
    from sklearn.datasets import load_digits

    images = load_digits().data[:number] / 5
    return jnp.asarray(images - images.mean(axis=0), jnp.float32)


def _vae(images: Any, quick: bool, report: Report) -> _Tally:
    import jax
    import jax.numpy as jnp

    from bayesjx import vi
    from benchmarks.vi import _linear_vaes as linear

    steps, latent, rate = (QUICK_STEPS, 12, QUICK_RATE) if quick else (15_000, 20, 0.1)
    objective = linear.weighted_elbo(linear.vae_model, linear.vae_guide)
    params = linear.start(jax.random.key(0), linear.shapes("vae", 0, 64, latent), 1.0)
    algorithm = linear.trainer(objective, params, steps, rate)
    tally, lines = _Tally(), {}
    for beta in QUICK_BETAS if quick else BETAS:
        data = ({"z": jnp.float32(beta)}, images, jnp.float32(1.0))
        trained = linear.train(jax.random.key(1), algorithm, steps, data)
        theory = vi.linear_vae_collapse(images, beta, latent_dim=latent)
        found = linear.spectrum(trained["dec"])
        tally.add(f"β = {beta:g}", [(found, theory.decoder)], beta)
        axis = range(1, latent + 1)
        lines[f"trained, β = {beta:g}"] = (axis, found)
        lines[f"theory, β = {beta:g}"] = (axis, theory.decoder)
    report.lines("Singular values of the decoder", "dimension", "singular value", lines)
    return tally


def _cvae(images: Any, quick: bool) -> _Tally:
    """The lower half of an image given the upper one."""
    import jax
    import jax.numpy as jnp

    from bayesjx import vi
    from benchmarks.vi import _linear_vaes as linear

    # Next to a threshold the loss is flat, and the last dimension takes long to get there.
    steps, latent, rate = (QUICK_STEPS, 6, QUICK_RATE) if quick else (30_000, 10, 0.03)
    x, y = images[:, :32], images[:, 32:]
    objective = linear.weighted_elbo(linear.cvae_model, linear.cvae_guide)
    params = linear.start(jax.random.key(2), linear.shapes("cvae", 32, 32, latent), 1.0)
    algorithm = linear.trainer(objective, params, steps, rate)
    tally = _Tally()
    for beta in QUICK_CVAE_BETAS if quick else (0.2, 0.5, 1.0, 2.0):
        data = ({"z": jnp.float32(beta)}, x, y, jnp.float32(1.0))
        trained = linear.train(jax.random.key(3), algorithm, steps, data)
        theory = vi.linear_cvae_collapse(x, y, beta, latent_dim=latent)
        tally.add(f"β = {beta:g}", [(linear.spectrum(trained["dec"]), theory.decoder)], beta)
    return tally


def _hvae(images: Any) -> _Tally:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bayesjx import vi
    from benchmarks.vi import _linear_vaes as linear

    steps, latent = 12_000, 6
    objective = linear.weighted_elbo(linear.hvae_model, linear.hvae_guide)
    params = linear.start(jax.random.key(4), linear.shapes("hvae", 0, 64, latent), 1.0)
    algorithm = linear.trainer(objective, params, steps, 0.03)
    _, scale, axes = np.linalg.svd(np.asarray(images, float), full_matrices=False)
    white = axes.T * scale / np.sqrt(len(images))
    tally = _Tally()
    for beta1, beta2, sigma1 in LEVELS:
        weights = {"z1": jnp.float32(beta1), "z2": jnp.float32(beta2)}
        data = (weights, images, jnp.float32(1.0), jnp.float32(sigma1))
        trained = linear.train(jax.random.key(5), algorithm, steps, data)
        theory = vi.linear_hvae_collapse(images, sigma1, beta1, beta2, latent_dim=latent)
        upper = (linear.spectrum(trained["dec2"]), theory.upper_decoder)
        lower = (linear.spectrum(trained["enc"] @ white), theory.encoder)
        setting = f"β₁ = {beta1:g}, β₂ = {beta2:g}, σ₁ = {sigma1:g}"
        tally.add(setting, [upper, lower], beta2 / beta1)
    return tally


def _relu(images: Any, report: Report) -> dict[str, float]:
    """Rank correlation of active units with the linear theory's count, over settings."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from scipy.stats import spearmanr

    from bayesjx import vi
    from benchmarks.vi import _relu_vaes as relu

    steps, hidden, latent = 12_000, 128, 32
    figures = {}
    for name, conditions in {"relu_vae": (0,), "relu_cvae": (1, 4)}.items():
        rows = []
        for given in conditions:  # rows of pixels that are known
            x, y = images[:, : 8 * given], images[:, 8 * given :]
            params = relu.start(jax.random.key(6), x.shape[1], y.shape[1], hidden, latent)
            algorithm = relu.trainer(params, latent, 256, steps)
            for beta in BETAS:
                if given:
                    theory = vi.linear_cvae_collapse(x, y, beta, latent_dim=latent)
                else:
                    theory = vi.linear_vae_collapse(y, beta, latent_dim=latent)
                predicted = int(np.sum(~np.asarray(theory.collapsed)))
                data = (jnp.float32(beta), x, y)
                found = relu.active(jax.random.key(7), algorithm, steps, latent, data)
                rows.append([given, beta, predicted, found])
        title = f"ReLU {'conditional ' * (name == 'relu_cvae')}VAE, active units"
        report.table(title, ["rows known", "β", "linear theory", "trained"], rows)
        figures[name] = float(spearmanr(*np.array(rows)[:, 2:].T).statistic)
    return figures


BENCHMARK = Benchmark(
    name="vi-collapse",
    claim="trained spectra and collapsed dimensions of linear VAEs are those of the theory",
    source="Dang, Tran, Nguyen and Ho (2024), theorems 1 to 3; 8 × 8 digits of scikit-learn",
    targets=TARGETS,
    run=run,
)
