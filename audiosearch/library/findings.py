"""What a check of a library found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Kind", "Verification"]

Kind = Literal["damaged", "derived", "leftover", "missing sound", "changed sound", "thesaurus"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes
    ----------
    kind : str
        ``"damaged"``: a part of the library is lost. ``"derived"``: what follows from other parts
        is wrong. ``"leftover"``: a file that a stopped process left. ``"missing sound"``,
        ``"changed sound"``: a file that was indexed is gone, or is not what it was.
        ``"thesaurus"``: the user's own words cannot be read.
    path : str
        The file.
    problem : str
        What is wrong with it, and what to do where it was not repaired.
    repaired : bool
        Whether it was put right.
    """

    kind: Kind
    path: str
    problem: str
    repaired: bool = False


@dataclass
class Verification:
    """What a check of a library found.

    Attributes
    ----------
    library : str
        The library's folder.
    recordings, clips, segments : int
        What was looked at.
    bytes_read : int
        How much of the library's files was read.
    sounds : int
        How many sound files and packed files were looked for.
    findings : list of Finding
        Everything that was wrong.
    elapsed : float
        How long it took, in seconds.
    """

    library: str
    recordings: int = 0
    clips: int = 0
    segments: int = 0
    bytes_read: int = 0
    sounds: int = 0
    findings: list[Finding] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether the library itself is whole now; sounds that are gone do not count."""
        return not any(
            finding.kind in ("damaged", "derived", "leftover", "thesaurus") and not finding.repaired
            for finding in self.findings
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self) | {"whole": self.whole}
