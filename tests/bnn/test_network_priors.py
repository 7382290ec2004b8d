"""Priors of whole networks: densities, draws, their derivatives, and sites of NumPyro programs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.util import log_density
from scipy import stats

from bayesjx import bnn, likelihoods

KEY = jax.random.key(7)
RNG = np.random.default_rng(2)
NETWORK = eqx.nn.MLP(3, "scalar", 2, 1, key=KEY)
SHAPES = {
    "layers[0].weight": (2, 3),
    "layers[0].bias": (2,),
    "layers[1].weight": (1, 2),
    "layers[1].bias": (1,),
}
VALUES = [RNG.normal(size=shape) for shape in SHAPES.values()]
WIDTHS = 1 / np.sqrt([3, 1, 2, 1])
SCALES = np.array([0.7, 1.3, 2.1, 0.4])
A, B = np.array([1.7, 2.3, 3.1, 2.9]), np.array([0.6, 1.9, 1.4, 2.2])
EACH = pytest.mark.parametrize("dtype, tol", [("float32", 2e-5), ("float64", 1e-10)])


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def scalars(numbers):
    return tuple(jnp.asarray(n) for n in numbers)


def normal():
    return eqx.tree_at(lambda p: p.scales, bnn.normal_prior(NETWORK), scalars(SCALES))


def hierarchical():
    where = lambda p: (p.concentrations, p.rates)  # noqa: E731
    return eqx.tree_at(where, bnn.hierarchical_prior(NETWORK), (scalars(A), scalars(B)))


def flow():
    """With maps that do something, some of them steep."""
    prior = bnn.flow_prior(KEY, NETWORK, 3)
    rng = np.random.default_rng(5)
    flows = tuple(
        bnn.PlanarFlow(
            *(jnp.asarray(rng.normal(size=f.weights.shape)) for _ in range(2)),
            jnp.asarray(rng.normal(size=3)),
        )
        for f in prior.flows
    )
    return eqx.tree_at(lambda p: (p.flows, p.scales), prior, (flows, scalars(SCALES)))


def normal_density(scales, values):
    scales = np.asarray(scales) * WIDTHS
    return sum(stats.norm(0, s).logpdf(v).sum() for s, v in zip(scales, values, strict=True))


def student_density(prior, values):
    total = 0
    for a, b, width, value in zip(A, B, WIDTHS, values, strict=True):
        shape = np.eye(value.size) * width**2 * b / a
        total += stats.multivariate_t(np.zeros(value.size), shape, df=2 * a).logpdf(value.ravel())
    return total


def flow_density(prior, values):
    """By points found from their images by Newton's method on the whole map, in float64."""
    total = 0
    for own, flow in zip(prior.places, prior.flows, strict=True):
        units = np.concatenate([(values[i] / SCALES[i] / WIDTHS[i]).ravel() for i in own])
        forward = jax.jit(lambda z, flow=flow: flow.forward(z)[0])
        jacobian, z = jax.jit(jax.jacobian(forward)), flow.inverse(jnp.asarray(units))[0]
        np.testing.assert_allclose(forward(z), units, rtol=1e-9, atol=1e-9)
        total += stats.norm.logpdf(z).sum() - np.linalg.slogdet(jacobian(z))[1]
        total -= sum(values[i].size * np.log(SCALES[i] * WIDTHS[i]) for i in own)
    return total


FAMILIES = {
    "normal": (normal, lambda prior, values: normal_density(prior.scales, values)),
    "hierarchical": (hierarchical, student_density),
    "flow": (flow, flow_density),
}


@EACH
@pytest.mark.parametrize("name", FAMILIES)
def test_densities_are_those_of_scipy_with_their_derivatives(name, dtype, tol):
    make, density = FAMILIES[name]
    wide = make()
    prior = cast(wide, dtype)

    @eqx.filter_jit
    def both(prior, values):
        params, rest = eqx.partition(prior, eqx.is_inexact_array)
        of = lambda params, values: eqx.combine(params, rest).log_prob(values)  # noqa: E731
        if dtype == "float32":
            return of(params, values)
        value, slopes = jax.value_and_grad(of, (0, 1))(params, values)
        batch = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), values)
        return value, slopes, jax.vmap(lambda v: of(params, v))(batch)

    values = tuple(jnp.asarray(v, dtype) for v in VALUES)
    if dtype == "float32":
        value = both(prior, values)
        assert value.dtype == dtype
        return np.testing.assert_allclose(value, density(wide, VALUES), rtol=tol)
    value, (slopes, in_values), batch = both(prior, values)
    np.testing.assert_allclose(value, density(wide, VALUES), rtol=tol)
    np.testing.assert_allclose(batch[0], value, rtol=tol)
    np.testing.assert_allclose(batch[1], density(wide, [2 * v for v in VALUES]), rtol=tol)
    step = 1e-6
    moved = [[v + sign * step * np.ones_like(v) for v in VALUES] for sign in (1, -1)]
    want = (density(wide, moved[0]) - density(wide, moved[1])) / (2 * step)
    np.testing.assert_allclose(sum(g.sum() for g in in_values), want, rtol=1e-6)
    ends = [
        jax.tree.map(lambda p, s=s: p + s * step if eqx.is_inexact_array(p) else p, wide)
        for s in (1, -1)
    ]
    found = sum(g.sum() for g in jax.tree.leaves(slopes))
    want = (both(ends[0], values)[0] - both(ends[1], values)[0]) / (2 * step)
    np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_their_distribution_and_derivatives(name):
    """Each weight's distribution, what ties those of a leaf, and derivatives of second moments."""
    prior = FAMILIES[name][0]()
    size = 600

    @eqx.filter_jit
    def run(prior, key):
        def square(prior, key):
            drawn = prior.draw(key)
            return sum(jnp.sum(v**2) for v in drawn), drawn

        keys = jax.random.split(key, size)
        grads, drawn = jax.vmap(lambda k: eqx.filter_grad(square, has_aux=True)(prior, k))(keys)
        return drawn, grads

    drawn, grads = run(prior, KEY)
    if name == "normal":
        for value, scale in zip(drawn, SCALES * WIDTHS, strict=True):
            assert stats.kstest(value[:, 0].ravel(), stats.norm(0, scale).cdf).pvalue > 1e-4
        for slope, value, scale in zip(grads.scales, drawn, SCALES, strict=True):
            squares = np.sum(value.reshape(size, -1) ** 2, 1)
            np.testing.assert_allclose(slope, 2 * squares / scale, rtol=1e-10)
    elif name == "hierarchical":
        parts = zip(drawn, A, B, WIDTHS, grads.concentrations, grads.rates, strict=True)
        for value, a, b, width, by_a, by_b in parts:
            n = value[0].size
            ratio = np.sum((value.reshape(size, n) / width) ** 2, 1) / n / (b / a)
            assert stats.kstest(ratio, stats.f(n, 2 * a).cdf).pvalue > 1e-4
            if a > 2:  # where the variance of the derivative is not too large
                close(by_a, -n * width**2 * b / (a - 1) ** 2)
                close(by_b, n * width**2 / (a - 1))
    else:  # a draw is the image of a normal vector, whose density the other test knows
        step, where = 1e-5, lambda p: p.flows[0].weights
        moved = [eqx.tree_at(where, prior, where(prior) + s * step) for s in (1, -1)]
        found = grads.flows[0].weights[:3].sum((1, 2))
        ends = [eqx.filter_jit(squares_of)(p, jax.random.split(KEY, size)[:3]) for p in moved]
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-6)
        base = inverse_of(prior, drawn)
        np.testing.assert_allclose(base.var(), 1, atol=5 * np.sqrt(2 / base.size))


def squares_of(prior, keys):
    return jax.vmap(lambda k: sum(jnp.sum(v**2) for v in prior.draw(k)))(keys)


def close(sample, want):
    assert abs(np.mean(sample) - want) < 5 * np.std(sample) / np.sqrt(len(sample))


def inverse_of(prior, drawn):
    """Base vectors of the first layer."""
    scales = SCALES * WIDTHS
    units = jnp.concatenate(
        [(drawn[i] / scales[i]).reshape(len(drawn[i]), -1) for i in prior.places[0]], axis=1
    )
    return np.asarray(jax.jit(jax.vmap(lambda y: prior.flows[0].inverse(y)[0]))(units))


def test_planar_maps_are_undone():
    """Near the bound of invertibility too, which is at the slope -1."""
    slopes = jnp.array([-0.999, -0.5, 0.0, 3.0, 40.0])
    points = jnp.asarray(RNG.normal(size=(5, 3)))

    def there_and_back(slope, z):
        weights = jnp.array([[0.8, -0.6, 0.0]])
        shift = jnp.log(jnp.expm1(slope + 1)) * weights + jnp.array([[0.3, 0.4, 2.0]])
        maps = bnn.PlanarFlow(weights, shift, jnp.array([0.2]))
        y, log_det = maps.forward(z)
        again, same = maps.inverse(y)
        jacobian = jax.jacobian(lambda z: maps.forward(z)[0])(z)
        back = jax.jacobian(lambda y: maps.inverse(y)[0])(y)
        return again, log_det, same, jnp.linalg.slogdet(jacobian)[1], back @ jacobian

    again, log_det, same, want, product = jax.jit(jax.vmap(there_and_back))(slopes, points)
    np.testing.assert_allclose(again, points, atol=1e-9)
    np.testing.assert_allclose([log_det, same], [want, want], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-6)


def test_families_start_at_fan_in_and_serve_mean_fields():
    """A flow starts as the identity; divergences from joint priors are estimates at a draw."""
    x, y = jnp.asarray(RNG.normal(size=(5, 3))), jnp.asarray(RNG.normal(size=5))
    noise, joint = likelihoods.Gaussian(0.1), hierarchical()
    plain, fan = bnn.normal_prior(NETWORK, 2.0, 0.5), bnn.FanIn(2.0, 0.5)
    images = bnn.flow_prior(KEY, NETWORK, 3, 2.0, 0.5)
    assert images.layers == ("layers[0]", "layers[1]") and images.places == ((0, 1), (2, 3))
    q = bnn.mean_field(NETWORK, noise, prior=plain)

    @jax.jit
    def run():
        joints = [
            bnn.log_joint(NETWORK, noise, x, y, prior=prior) for prior in (plain, images, fan)
        ]
        entropy = sum(jnp.sum(dist.Normal(0, s).entropy()) for s in q.scales)
        estimate = -entropy - joint.log_prob(q.draw(KEY))
        return joints, [q.kl(), q.kl(fan)], [q.kl(joint, key=KEY), estimate]

    for values in run():
        np.testing.assert_allclose(values[:-1], np.full(len(values) - 1, values[-1]), rtol=1e-10)


def test_precisions_given_weights_are_those_of_bayes_rule():
    """Of any precision: p(w) p(t | w) = p(w | t) p(t), and p(t | w) is what is drawn from."""
    prior = hierarchical()
    network = prior.leaves.put(NETWORK, tuple(map(jnp.asarray, VALUES)))
    both = lambda key: (prior.precisions(key, network), prior.precisions(key))  # noqa: E731
    drawn, free = jax.jit(jax.vmap(both))(jax.random.split(KEY, 500))
    total = 0
    for a, b, width, value, own, by_itself in zip(A, B, WIDTHS, VALUES, drawn, free, strict=True):
        rate = b + np.sum((value / width) ** 2) / 2
        conditional = stats.gamma(a + value.size / 2, scale=1 / rate)
        assert stats.kstest(own, conditional.cdf).pvalue > 1e-4
        assert stats.kstest(by_itself, stats.gamma(a, scale=1 / b).cdf).pvalue > 1e-4
        total += stats.gamma(a, scale=1 / b).logpdf(own[0]) - conditional.logpdf(own[0])
    given = prior.given(tuple(own[0] for own in drawn))
    want = student_density(prior, VALUES)
    np.testing.assert_allclose(normal_density(given.scales, VALUES) + total, want, rtol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_sites_of_programs_have_the_density_and_become_a_posterior(name):
    prior = FAMILIES[name][0]()

    def model():
        return bnn.random_network("net", NETWORK, prior)

    @jax.jit
    def run(x):
        sites = trace(seed(model, KEY)).get_trace()
        drawn = {k: s["value"] for k, s in sites.items() if s["type"] == "sample"}
        all_sites = {k: s["value"][None] for k, s in sites.items()}
        posterior = bnn.from_sites("net", all_sites, NETWORK)
        network = substitute(seed(model, KEY), data=drawn)()
        f = posterior.values(x)[0], jax.vmap(network)(x)
        return drawn, all_sites, log_density(model, (), {}, drawn)[0], f

    drawn, sites, density, (of_posterior, of_network) = run(jnp.asarray(RNG.normal(size=(5, 3))))
    np.testing.assert_allclose(of_posterior, of_network, rtol=1e-10)
    values = [sites[f"net/{leaf}"][0] for leaf in SHAPES]
    assert [v.shape for v in values] == list(SHAPES.values())
    if name == "normal":
        assert set(drawn) == {f"net/{leaf}" for leaf in SHAPES}
        want = normal_density(SCALES, values)
    elif name == "hierarchical":
        precisions = tuple(drawn[f"net/{leaf}.precision"] for leaf in SHAPES)
        want = normal_density(1 / np.sqrt(precisions), values)
        want += sum(
            stats.gamma(a, scale=1 / b).logpdf(t) for a, b, t in zip(A, B, precisions, strict=True)
        )
    else:
        assert set(drawn) == {"net/layers[0].base", "net/layers[1].base"}
        want = sum(stats.norm.logpdf(v).sum() for v in drawn.values())
        base = [drawn[f"net/{layer}.base"] for layer in prior.layers]
        images = [f.forward(b)[0] for f, b in zip(prior.flows, base, strict=True)]
        np.testing.assert_allclose(values[2].ravel(), images[1][:2] * SCALES[2] * WIDTHS[2])
        np.testing.assert_allclose(values[1].ravel(), images[0][6:] * SCALES[1] * WIDTHS[1])
    np.testing.assert_allclose(density, want, rtol=1e-10)


def test_functions_of_random_networks():
    """A linear function of normal weights is normal; other leaves stay; single precision."""
    prior = bnn.normal_prior(eqx.nn.Linear(3, 2, key=KEY), 1.5, 0.5)
    x = np.asarray(RNG.normal(size=(5, 3)))
    f = jax.jit(lambda key: prior.sample_functions(key, x, 500))(KEY)
    assert f.shape == (500, 5, 2)
    want = 1.5**2 / 3 * x @ x.T + 0.25
    found = np.einsum("smp,snp->mn", f, f) / f.shape[0] / 2
    error = np.sqrt((np.outer(np.diag(want), np.diag(want)) + want**2) / 1000)
    assert np.all(np.abs(found - want) < 5 * error)
    half = cast(NETWORK, "float32")
    last = bnn.hierarchical_prior(half, where=lambda m: m.layers[-1])
    values, network = eqx.filter_jit(lambda k: (last.sample_functions(k, x, 3), last.sample(k)))(
        KEY
    )
    assert values.shape == (3, 5) and len(last.rates) == 2
    np.testing.assert_array_equal(network.layers[0].weight, half.layers[0].weight)
    assert values.dtype == network.layers[1].weight.dtype == jnp.float32


@pytest.mark.errors
def test_other_leaves_and_joint_priors_are_named():
    joint = hierarchical()
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("random_network: prior must be one of the same random leaves"):
        seed(bnn.random_network, KEY)("net", eqx.nn.MLP(3, 2, 2, 1, key=KEY), normal())
    with raises("a key"):
        bnn.mean_field(NETWORK, likelihoods.Gaussian(0.1), prior=joint).kl()
    with raises("precisions: network must be like that of the prior"):
        joint.precisions(KEY, eqx.nn.Linear(3, 2, key=KEY))
    with raises("precisions must be 4, one for each"):
        joint.given((1.0,))
