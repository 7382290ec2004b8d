"""A structured operator beside the dense matrix that it stands for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

NUM_DRAWS = 4000
ERRORS = 5  # standard errors that a covariance may be off

# Each program runs once: what it costs is its compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


def assert_values(make, dense, arrays, **tol):
    """Every method that has a dense formula; `make(*arrays)` is positive definite."""

    @jit
    def both(arrays):
        operator, matrix = make(*arrays), dense(*arrays)
        x = columns(operator, 3)
        quad, logdet = operator.inv_quad_logdet(x)
        one = operator.inv_quad_logdet(x[:, 0])
        got = {
            "mv": operator.mv(x[:, 0]),
            "mm": operator @ x,
            "rmatmul": x.T @ operator,
            "solve": operator.solve(x),
            "solve one": operator.solve(x[:, 0]),
            "logdet": operator.logdet(),
            "quad": quad,
            "quad one": one.inv_quad,
            "fused logdet": logdet,
            "diag": operator.diag(),
            "inverse_diag": operator.inverse_diag(),
            "root": square(operator.root()),
            "as_matrix": operator.as_matrix(),
        }
        inverse = jnp.linalg.inv(matrix)
        logdet = jnp.linalg.slogdet(matrix)[1]
        quad = jnp.sum(x * (inverse @ x), 0)
        want = {
            "mv": matrix @ x[:, 0],
            "mm": matrix @ x,
            "rmatmul": x.T @ matrix,
            "solve": inverse @ x,
            "solve one": inverse @ x[:, 0],
            "logdet": logdet,
            "quad": quad,
            "quad one": quad[0],
            "fused logdet": logdet,
            "diag": jnp.diag(matrix),
            "inverse_diag": jnp.diag(inverse),
            "root": matrix,
            "as_matrix": matrix,
        }
        return got, want

    got, want = both(arrays)
    for name, value in got.items():
        assert value.dtype == arrays[0].dtype, name
        np.testing.assert_allclose(value, want[name], err_msg=name, **tol)


def assert_derivatives(make, dense, arrays):
    """First and second derivatives: against the dense matrix, and central differences."""

    def ours(arrays, x):
        operator = make(*arrays)
        quad, logdet = operator.inv_quad_logdet(x)
        solved, inverse_diag = operator.solve(x), operator.inverse_diag()
        root = square(operator.root())
        return total(x, quad, logdet, operator.logdet(), solved, inverse_diag, root)

    def theirs(arrays, x):
        matrix = dense(*arrays)
        inverse, logdet = jnp.linalg.inv(matrix), jnp.linalg.slogdet(matrix)[1]
        quad = jnp.sum(x * (inverse @ x), 0)
        return total(x, quad, logdet, logdet, inverse @ x, jnp.diag(inverse), matrix)

    def total(x, quad, logdet, again, solved, inverse_diag, square):
        weights = jnp.cos(jnp.arange(square.size, dtype=x.dtype)).reshape(square.shape)
        scalars = jnp.sum(jnp.sin(quad)) * logdet + jnp.sin(again)
        spread = jnp.sum(weights * square**2) / jnp.sum(square**2)
        return scalars + jnp.sum(jnp.sin(solved)) + spread + jnp.sum(weights[0] * inverse_diag**2)

    def derivatives(fn, point):
        along = jax.tree.map(jnp.sin, point)
        return jax.jvp(lambda point: jax.grad(fn, (0, 1))(*point), (point,), (along,))

    @jit
    def both(point):
        along = jax.tree.map(jnp.sin, point)
        steps = jnp.asarray([-1e-5, 1e-5])
        ends = jax.lax.map(
            lambda h: ours(*jax.tree.map(lambda p, a: p + h * a, point, along)), steps
        )
        return derivatives(ours, point), derivatives(theirs, point), (ends[1] - ends[0]) / 2e-5

    point = (arrays, columns(make(*arrays), 2))
    got, want, slope = both(point)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * (1 + np.abs(b).max()))
    along = jax.tree.map(jnp.sin, point)
    products = jax.tree.map(lambda g, a: np.sum(g * a), got[0], along)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-6, atol=1e-7)


def assert_draws(make, dense, arrays, inverse=True):
    """Covariances of draws, at standard errors of their own, and the shape of the draws."""

    @jit
    def moments(arrays):
        operator, matrix = make(*arrays), dense(*arrays)
        draws = [operator.sample(jax.random.key(0), (2, NUM_DRAWS // 2))]
        exact = [matrix]
        if inverse:
            draws.append(operator.sample_inverse(jax.random.key(1), (2, NUM_DRAWS // 2)))
            exact.append(jnp.linalg.inv(matrix))
        return draws, exact

    draws, exact = moments(arrays)
    for sample, cov in zip(draws, exact, strict=True):
        assert sample.shape == (2, NUM_DRAWS // 2, len(cov))
        assert sample.dtype == arrays[0].dtype
        flat = np.asarray(sample).reshape(NUM_DRAWS, -1)
        variances = np.diag(cov)
        error = np.sqrt((np.outer(variances, variances) + cov**2) / NUM_DRAWS)
        assert np.all(np.abs(flat.T @ flat / NUM_DRAWS - cov) < ERRORS * error)
        assert np.all(np.abs(flat.mean(0)) < ERRORS * np.sqrt(variances / NUM_DRAWS))


def assert_vmap(make, arrays):
    """A batch of operators, made inside `vmap` and passed through it, equals a loop."""

    def compute(operator):
        x = columns(operator, 2)
        logdet_grad = jax.grad(lambda x: jnp.sum(operator.inv_quad_logdet(x).inv_quad))(x)
        draw = operator.sample(jax.random.key(0))
        return operator @ x, operator.solve(x), operator.logdet(), logdet_grad, draw

    @jit
    def both(arrays):
        batch = jax.tree.map(lambda a: jnp.stack([a, 1.1 * a]), arrays)
        operators = jax.vmap(lambda a: make(*a))(batch)
        rows = [jax.tree.map(lambda a, i=i: a[i], batch) for i in range(2)]
        loop = [compute(make(*row)) for row in rows]
        return jax.vmap(compute)(operators), jax.tree.map(lambda *a: jnp.stack(a), *loop)

    for got, want in zip(*both(arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def peak_bytes(fn, *args):
    """Memory of the compiled `fn` besides its arguments."""
    memory = jax.jit(fn).lower(*args).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def columns(operator, num):
    """Some vectors of the operator's size and type."""
    size = operator.shape[1]
    return jnp.sin(jnp.arange(1, size * num + 1, dtype=operator.dtype)).reshape(num, size).T


def square(root):
    """$R R^T$, dense."""
    matrix = root.as_matrix()
    return matrix @ matrix.T
