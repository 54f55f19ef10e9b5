"""What every kind of source notes beside its rows: `counts`, `warnings` and `seen` of `sources.Source`."""

from lvae.encode.files.locations import Seen


class Notes:
    """The part of a source that is begun anew with every listing."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.warnings: list[str] = []
        self.seen = Seen()

    def begin_again(self) -> None:
        """Counts and warnings stay the same objects: walks that were handed them go on filling them."""
        self.counts.clear()
        self.warnings.clear()
        self.seen = Seen()

    def count(self, what: str) -> None:
        """One more of what is no image to be listed."""
        self.counts[what] = self.counts.get(what, 0) + 1
