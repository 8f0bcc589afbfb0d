"""A block seen through another: all of it is as it is stored, but for the scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiosearch.library.blocks import POSTED_CODE, Block, Rows
from audiosearch.library.runs import Runs

__all__ = ["BlockView", "stored_block"]


class BlockView:
    """What a block with other scores has in common with the block that it shows.

    Parameters
    ----------
    block : Block
        The block, which may be a view itself.
    """

    def __init__(self, block: Block) -> None:
        self.base = block
        self.rows = block.rows
        self.recordings = block.recordings
        self.vectors = block.vectors
        self.posted_code = max(block.posted_code, POSTED_CODE)
        self.single = block.single

    @property
    def first(self) -> int:
        """Number of the first clip."""
        return self.base.first

    @property
    def stop(self) -> int:
        """One more than the number of the last clip."""
        return self.base.stop

    @property
    def runs(self) -> Runs:
        """Its recordings as runs of rows."""
        return self.base.runs

    def clip_ids(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the numbers of clips by row."""
        return self.base.clip_ids(rows)

    def row_of(self, clip: int) -> int:
        """Return the row of a clip, -1 when it is not here."""
        return self.base.row_of(clip)

    def rows_of(self, clips: npt.NDArray[np.int64]) -> Rows:
        """Return the rows of clips, -1 for those that are not here."""
        return self.base.rows_of(clips)

    def frame_counts(self) -> npt.NDArray[np.uint8]:
        """Return how many embedding frames each clip has here, uint8 (rows,)."""
        return self.base.frame_counts()

    def frames(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of neighbouring rows, uint8 (n, 128)."""
        return self.base.frames(start, stop)


def stored_block(block: Block) -> Block:
    """Return a block as it is stored, with the scores that it was indexed with."""
    while isinstance(block, BlockView):
        block = block.base
    return block
