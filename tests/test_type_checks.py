"""Calls are checked while tests run, but for those of our own error texts."""

import os

import jaxtyping
import pytest

from bayesjx import datasets


@pytest.mark.skipif(os.environ.get("BAYESJX_TYPECHECK", "1") == "0", reason="they are off")
def test_arguments_of_another_type_are_found():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters of bayesjx.*digits"):
        datasets.digits(0)


@pytest.mark.errors
def test_our_own_errors_come_through():
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        datasets.digits(0)
