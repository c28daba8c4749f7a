"""Work on the rows of a batch, in halves where memory does not suffice for all."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.metrics import StageMetrics

Rows = Callable[[slice], tuple[Tensor, ...]]
"""Some rows in, their results out: tensors [n_rows, ...] that do not depend on other rows."""

_MOST: Final = 1 << 30
_NO_MEMORY: Final = "DefaultCPUAllocator: can't allocate memory"


class Batches:
    """One kind of work; what did not fit once is not tried again."""

    def __init__(self, what: str, metrics: StageMetrics) -> None:
        """`what` is for errors; a batch that had to be halved is counted: `batch_halved`."""
        self._what = what
        self._metrics = metrics
        self._most = _MOST

    def run(self, work: Rows, n_rows: int) -> tuple[Tensor, ...]:
        """The results of `work` for at least one row, of all rows in order.

        Raises:
            ScorerError: there is not memory enough for a single row.
        """
        parts: list[tuple[Tensor, ...]] = []
        first = 0
        while first < n_rows:
            rows = slice(first, min(n_rows, first + self._most))
            part = _tried(work, rows)
            if part is not None:
                parts.append(part)
                first = rows.stop
                continue
            n_tried = rows.stop - rows.start
            if n_tried == 1:
                msg = f"{self._what}: there is not enough memory for a batch of one"
                raise ScorerError(msg)
            self._metrics.drop("batch_halved")
            self._most = n_tried // 2
        if len(parts) == 1:
            return parts[0]
        return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def _tried(work: Rows, rows: slice) -> tuple[Tensor, ...] | None:
    """None: out of memory. What was computed by then is free again once this has returned."""
    try:
        return work(rows)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _NO_MEMORY in str(error):
            return None
        raise
