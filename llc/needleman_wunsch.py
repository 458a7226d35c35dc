"""The cheapest way to match two sequences in order, of all there are (Needleman & Wunsch, J. Mol. Biol. 48, 1970).

That item i is matched with column k costs c_ik; that an item, or a column, has no counterpart costs s_i, or g_k.
Without a match all of it costs Σs + Σg. The most that matches of the first i items with the first k columns save is

    P_ik = max(P_{i−1,k}, P_{i,k−1}, P_{i−1,k−1} + s_i + g_k − c_ik),     P_0k = P_i0 = 0

Many alignments go through the recursion at once.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Alignments:
    """Of many pairs of sequences, the cheapest each. total: (...), what it costs."""

    def __init__(self, cost: Floats, skip: Floats, gap: Floats) -> None:
        """cost: (..., items, columns), of a match; skip: (..., items) and gap: (..., columns), of no counterpart."""
        *batch, items, columns = cost.shape
        skip, gap = np.broadcast_to(skip, (*batch, items)), np.broadcast_to(gap, (*batch, columns))
        gain = np.moveaxis(skip[..., None] + gap[..., None, :] - cost, -2, 0)
        self._saved = np.zeros((items + 1, *batch, columns + 1))
        for before, after, own in zip(self._saved, self._saved[1:], gain, strict=False):
            after[:] = before
            np.maximum(before[..., 1:], before[..., :-1] + own, out=after[..., 1:])
            np.maximum.accumulate(after, axis=-1, out=after)
        self.total: Floats = skip.sum(axis=-1) + gap.sum(axis=-1) - self._saved[-1, ..., -1]

    def matched(self, *which: Ints) -> Ints:
        """Of those at these indices, for each column the item that it is, or −1: (…, columns)."""
        saved = self._saved[:, *which]
        *batch, columns = saved.shape[1:]
        at, items = np.indices(batch, sparse=True), np.full(batch, len(saved) - 1)
        found = np.full((*batch, columns - 1), -1)
        for k in range(columns - 1, 0, -1):
            most = saved[items, *at, k]
            first = np.sum(saved[..., k] < most, axis=0)  # of the items that save as much with these columns
            is_match = saved[first, *at, k - 1] < most
            items = np.where(is_match, first - 1, items)
            found[..., k - 1] = np.where(is_match, items, -1)
        return found
