"""What a patch is, and how it is put in and taken out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_ABSENT = object()


@dataclass
class Patch:
    """One thing that moto lacks, mended by replacing attributes of its classes and modules.

    A patch can be taken out as well: a test takes out one at a time and sees the behaviour fail, which tells when a new
    version of moto has made the patch superfluous. For that, no two patches may replace the same attribute.
    """

    name: str
    install: Callable[[Patch], None]
    """Calls `set` for each attribute. Its docstring says what moto lacks and what AWS does."""
    _originals: list[tuple[Any, str, Any]] = field(default_factory=list)

    @property
    def applied(self) -> bool:
        return bool(self._originals)

    def apply(self) -> None:
        """Put the patch in; does nothing when it is in already."""
        if not self.applied:
            self.install(self)

    def revert(self) -> None:
        """Take the patch out; does nothing when it is not in."""
        while self._originals:
            owner, attribute, original = self._originals.pop()
            if original is _ABSENT:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, original)

    def set(self, owner: Any, attribute: str, value: Any) -> None:
        """Replace an attribute of a class or module, or add it where moto has none."""
        # Through __dict__, because getattr would turn a staticmethod into a plain function and find inherited attributes.
        self._originals.append((owner, attribute, vars(owner).get(attribute, _ABSENT)))
        setattr(owner, attribute, value)


def patch(name: str, into: list[Patch]) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register the decorated function as a patch called `name`."""

    def register(install: Callable[[Patch], None]) -> Callable[[Patch], None]:
        into.append(Patch(name, install))
        return install

    return register
