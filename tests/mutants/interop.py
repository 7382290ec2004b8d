"""Mistakes planted in `bayesjx.interop`, and in what it hands on from `bayesjx._core`."""

from mutant import Mutant

PACKAGE = "interop"
MUTANTS = [
    Mutant(
        "chains and draws stay swapped",
        "_core/_datatree.py",
        "x = x.swapaxes(0, 1)",
        "x = x.copy()",
        "tests/_core/test_datatree.py -k chains_by_number",
    ),
    Mutant(
        "chains cut across instead of one after the other",
        "_core/_datatree.py",
        "x = x.reshape(chains, x.shape[0] // chains, *x.shape[1:])",
        "x = x.reshape(x.shape[0] // chains, chains, *x.shape[1:]).swapaxes(0, 1)",
        "tests/_core/test_datatree.py -k chains_by_number",
    ),
    Mutant(
        "all chains move by one key",
        "interop/_blackjax.py",
        "jax.vmap(one)(jax.random.split(key, num_chains), state)",
        "jax.vmap(one, (None, 0))(key, state)",
        "tests/interop/test_blackjax.py -k moments",
    ),
    Mutant(
        "statistics of the first step of a block",
        "interop/_blackjax.py",
        "rows = slice(thin - 1, None, thin)",
        "rows = slice(0, None, thin)",
        "tests/interop/test_blackjax.py -k labels",
    ),
    Mutant(
        "the mean log density of a chain is a sum",
        "interop/_blackjax.py",
        "jnp.mean(log_density)",
        "jnp.sum(log_density)",
        "tests/interop/test_blackjax.py -k labels",
    ),
    Mutant(
        "bfloat16 is handed on as it is",
        "_core/_datatree.py",
        "return x.astype(np.float32) if x.dtype == jnp.bfloat16 else x",
        "return x",
        "tests/_core/test_datatree.py -k bfloat16",
    ),
    Mutant(
        "observed data get a chain and draws",
        "_core/_datatree.py",
        "            leading[group] = ()\n",
        '            leading[group] = ("chain", "draw")\n',
        "tests/_core/test_datatree.py -k all_groups",
    ),
    Mutant(
        "the checksum of the arrays is not compared",
        "_core/_checkpoint.py",
        'if hashlib.sha256(payload).hexdigest() != header["payload_sha256"]:',
        "if False:",
        "tests/_core/test_checkpoint.py -k corrupted",
    ),
    Mutant(
        "the implementation of a saved key is forgotten",
        "_core/_checkpoint.py",
        'jax.random.wrap_key_data(jnp.asarray(data), impl=leaf["impl"])',
        "jax.random.wrap_key_data(jnp.asarray(data))",
        "tests/_core/test_checkpoint.py -k states_with_keys",
    ),
    Mutant(
        "a checkpoint of other data is accepted",
        "_core/_resume.py",
        '            ("data", "other data"),\n',
        "",
        "tests/_core/test_checkpoint.py -k another_fit_is_refused",
    ),
    Mutant(
        "statistics of the steps before the draws",
        "interop/_blackjax.py",
        "rows = slice(thin - 1, None, thin)",
        "rows = slice(0, None, thin)",
        "tests/interop/test_blackjax.py -k labels",
    ),
    Mutant(
        "classes of an order taken for those of the table",
        "interop/_sklearn_pfn.py",
        "chunks.append(sum(p[:count, c] for p, c in zip(logits, codes, strict=True)))",
        "chunks.append(sum(p[:count, : len(c)] for p, c in zip(logits, codes, strict=True)))",
        "tests/interop/test_sklearn_pfn.py -k probabilities",
    ),
    Mutant(
        "queries whose columns keep their order",
        "interop/_sklearn_pfn.py",
        "posterior.predict(context.padded(padded, order), batch_size=QUERIES)",
        "posterior.predict(context.padded(padded, sorted(order)), batch_size=QUERIES)",
        "tests/interop/test_sklearn_pfn.py -k probabilities",
    ),
    Mutant(
        "distributions in the network's units",
        "interop/_sklearn_pfn.py",
        "return BarDistribution(self._y_loc + self._y_scale * new.borders, new.logits)",
        "return BarDistribution(self._y_loc + new.borders, new.logits)",
        "tests/interop/test_sklearn_pfn.py -k units",
    ),
    Mutant(
        "keys and values are saved",
        "interop/_sklearn_pfn.py",
        'if k not in ("loaded", "posteriors")}',
        'if k not in ("loaded",)}',
        "tests/interop/test_sklearn_pfn.py -k saved",
    ),
    Mutant(
        "columns without values take part",
        "interop/_sklearn_pfn.py",
        "((0, 0), (0, lacking)), constant_values=np.nan)",
        "((0, 0), (0, lacking)), constant_values=0)[:, ::-1]",
        "tests/interop/test_sklearn_pfn.py -k probabilities",
    ),
]
