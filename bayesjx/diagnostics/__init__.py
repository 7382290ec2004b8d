"""Checks of inference results: arrays in, arrays out, whatever method made them."""

from ._psis import PSIS as PSIS, psis as psis
