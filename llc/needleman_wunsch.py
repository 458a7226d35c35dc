"""The cheapest way to match two sequences in order, of all there are (Needleman & Wunsch, J. Mol. Biol. 48, 1970).

That item i is matched with column k costs c_ik; that an item, or a column, has no counterpart costs s_i, or g_k:

    F_ik = min(F_{i−1,k−1} + c_ik,  F_{i−1,k} + s_i,  F_{i,k−1} + g_k),     F_00 = 0

Many alignments go through the recursion at once.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def needleman_wunsch(cost: Floats, skip: Floats, gap: Floats) -> tuple[Floats, Ints]:
    """Of many alignments at once, the least cost, and for each column the item that it is, or −1.

    cost: (..., items, columns), of a match; skip: (..., items) and gap: (..., columns), of what has no counterpart.
    """
    *batch, items, columns = cost.shape
    skip, gap = np.broadcast_to(skip, (*batch, items)), np.broadcast_to(gap, (*batch, columns))
    gaps = np.concatenate([np.zeros((*batch, 1)), np.cumsum(gap, axis=-1)], axis=-1)
    is_match = np.zeros((*batch, items + 1, columns + 1), bool)
    is_gap, least = np.ones_like(is_match), gaps
    for i in range(items):
        ended, match = least + skip[..., i, None], least[..., :-1] + cost[..., i, :]
        is_match[..., i + 1, 1:] = match <= ended[..., 1:]
        ended[..., 1:] = np.minimum(ended[..., 1:], match)
        # Any number of gaps are one step: F_ik = min over l ≤ k of F_il + g_{l+1} + … + g_k.
        least = gaps + np.minimum.accumulate(ended - gaps, axis=-1)
        is_gap[..., i + 1, :] = least < ended - 1e-9
    ways = np.full((*batch, columns + 1), -1)  # the first for what comes before all columns
    at = tuple(np.indices(batch, sparse=True))
    i, k = np.full(batch, items), np.full(batch, columns)
    for _ in range(items + columns):
        skips, matches = ~is_gap[(*at, i, k)], is_match[(*at, i, k)] & ~is_gap[(*at, i, k)]
        ways[(*at, k)] = np.where(matches, i - 1, ways[(*at, k)])
        i, k = np.maximum(i - skips, 0), np.maximum(k - (matches | ~skips), 0)
    return least[..., -1], ways[..., 1:]
