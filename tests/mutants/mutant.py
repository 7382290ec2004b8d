"""What a planted mistake is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A mistake and the tests that must notice it.

    Attributes:
        name: what is wrong, in a few words.
        file: below `bayesjx/`.
        old: text that stands in the file exactly once. Where it does not, or the file has moved,
            it must stand exactly once in the whole library.
        new: what replaces it.
        tests: arguments of pytest, as few tests as will do.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
