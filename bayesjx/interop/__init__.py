"""Ways in and out: samplers of BlackJAX, labelled results for ArviZ, and saved fits."""

from bayesjx._core import (
    CheckpointError as CheckpointError,
    CheckpointWriteError as CheckpointWriteError,
    describe_checkpoint as describe_checkpoint,
    load_checkpoint as load_checkpoint,
    to_datatree as to_datatree,
)
from bayesjx.interop._blackjax import (
    from_blackjax as from_blackjax,
    sample as sample,
    SampleInfo as SampleInfo,
    Samples as Samples,
)
