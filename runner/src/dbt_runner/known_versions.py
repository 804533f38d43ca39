"""Which versions of a library of others were read by those who reach into it. What a newer one does, nobody here knows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class KnownVersions:
    """The versions of a library whose source was read.

    Attributes:
        distribution: its name as a package.
        first: the first of them.
        before: the first one after them.
    """

    distribution: str
    first: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def installed(self) -> str:
        """The version that is here. Raises: importlib.metadata.PackageNotFoundError: there is none."""
        return metadata.version(self.distribution)

    @property
    def has_installed(self) -> bool:
        """Whether that is one of these; a preview counts as what it previews. Raises: as `installed`, and ValueError for no number."""
        return self.first <= tuple(int(part) for part in self.installed.split(".")[:2]) < self.before

    @property
    def bounds(self) -> tuple[str, str]:
        """`first` and `before` as text."""
        first, before = (".".join(map(str, version)) for version in (self.first, self.before))
        return first, before
