"""Ways in and out: labelled results for ArviZ, and saved fits."""

from bayesjx._core import (
    CheckpointError as CheckpointError,
    CheckpointWriteError as CheckpointWriteError,
    describe_checkpoint as describe_checkpoint,
    load_checkpoint as load_checkpoint,
    to_datatree as to_datatree,
)
