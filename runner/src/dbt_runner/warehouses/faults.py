"""What an exception of an adapter means: worth another attempt, refused, the model's own, or unknown, which is never tried again.

Decided by codes and classes. Texts count only where a driver gives nothing else, and only those that the adapter's table lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.events import Failure

# Classes of the standard library, of requests, urllib3 and botocore whose name alone says that nobody answered.
_NETWORK: Mapping[str, ErrorKind | None] = {
    # It is a ConnectionError to requests, but comes back every time.
    "SSLError": ACCESS_DENIED,
    "SSLCertVerificationError": ACCESS_DENIED,
    **dict.fromkeys(
        (
            "ConnectionError",
            "ConnectionRefusedError",
            "ConnectionResetError",
            "BrokenPipeError",
            "TimeoutError",
            "gaierror",
            "ConnectTimeout",
            "ReadTimeout",
            "ConnectionClosedError",
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
        ),
        WAREHOUSE_UNAVAILABLE,
    ),
}
# Of an OSError that is none of these classes, and of those that are.
_OS: Mapping[str, ErrorKind | None] = dict.fromkeys(
    ("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "EPIPE", "ETIMEDOUT"),
    WAREHOUSE_UNAVAILABLE,
)


@dataclass(frozen=True)
class Verdict:
    """What a failure means, and the evidence for it."""

    kind: ErrorKind
    why: str


@dataclass(frozen=True)
class Text:
    """A part of a message, of a class that has no code for it."""

    type: str
    part: str
    kind: ErrorKind


@dataclass(frozen=True)
class Faults:
    """The exceptions of one adapter. Of each exception in a chain the first rule that fits decides, in the order below.

    Attributes:
        codes: by a code's kind (see dbt_runner.evidence), codes or their beginnings with an asterisk; the longest fits first. None
            for one that is the model's own matter.
        texts: parts of messages; for exceptions without any code that `codes` knows the kind of.
        types: names of classes; None for one that says nothing of itself.
        without_code: the same, for exceptions that bring no code that `codes` knows the kind of.
    """

    codes: Mapping[str, Mapping[str, ErrorKind | None]] = field(default_factory=dict)
    texts: Sequence[Text] = ()
    types: Mapping[str, ErrorKind | None] = field(default_factory=dict)
    without_code: Mapping[str, ErrorKind | None] = field(default_factory=dict)

    def verdict(self, failure: Failure) -> Verdict | None:
        """What the failure means; None where nothing in its chain is known.

        The chain is read from the outside: what stands further in may be an earlier try, which the driver got over.
        """
        known = {"os": _OS, **self.codes}
        for link in failure.chain:
            coded = {kind: code for kind, code in link.codes.items() if kind in known}
            for code_kind, code in coded.items():
                fitting = _fitting(known[code_kind], code)
                if fitting is not None:
                    means = known[code_kind][fitting]
                    return None if means is None else Verdict(means, _evidence(failure, link, f" with {code_kind} {code}"))
            if not coded:
                text = next((t for t in self.texts if t.type in link.names and t.part in link.message), None)
                if text is not None:
                    return Verdict(text.kind, _evidence(failure, link, f" that says {text.part.strip()!r}"))
            tables: tuple[Mapping[str, ErrorKind | None], ...] = (self.types, {} if coded else self.without_code, _NETWORK)
            name, kind = next(((name, table[name]) for name in link.names for table in tables if name in table), ("", None))
            if kind is not None:
                return Verdict(kind, _evidence(failure, link, "" if name == link.type else f" (a {name})"))
            if coded:
                # The driver said what it is, and it is nothing that the tables know.
                return None
        return None


def _evidence(failure: Failure, link: Failure, says: str) -> str:
    return f"exception {link.type}{says}" if link is failure else f"exception {failure.type}, from {link.type}{says}"


def _fitting(table: Mapping[str, ErrorKind | None], code: str) -> str | None:
    """The key that stands for a code."""
    if code in table:
        return code
    return max((key for key in table if key.endswith("*") and code.startswith(key[:-1])), key=len, default=None)
