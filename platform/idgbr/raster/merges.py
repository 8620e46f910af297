"""Which region a region has become a part of."""

from __future__ import annotations


class Merges(dict[int, int]):
    """The region that each merged region was merged into, which may have been merged itself since."""

    def root(self, region: int) -> int:
        """The region that holds `region` now: itself, if it was not merged."""
        root = region
        while root in self:
            root = self[root]
        while region != root:  # the next look is short
            self[region], region = root, self[region]
        return root
