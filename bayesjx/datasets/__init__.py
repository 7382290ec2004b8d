"""Simulators that return data and the truth they were made of, pure functions of a key."""

from ._bars import Bars as Bars, bars as bars
