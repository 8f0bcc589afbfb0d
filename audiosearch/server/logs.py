"""What is logged holds no secret: tokens, passwords and cookies are blotted out."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

__all__ = ["scrub"]

_BLOT = "***"
_LEAST = 6
_FORMS = (
    re.compile(
        r"(?i)\b((?:token|ticket|password|csrf_token|audiosearch_session)['\"]?\s*[=:]\s*['\"]?)"
        r"[^&;,\s\"'>]+"
    ),
    re.compile(r"(?i)\b((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+"),
)


class _Scrubber(logging.Filter):
    """Rewrites records: their message and their traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: list[str] = []
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._clean(record.exc_text)
        return True

    def _clean(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, _BLOT)
        for form in _FORMS:
            text = form.sub(rf"\g<1>{_BLOT}", text)
        return text


def scrub(name: str, *, secrets: Sequence[str]) -> None:
    """Blot secrets out of everything that is logged under a name.

    Parameters
    ----------
    name : str
        Name of the logger.
    secrets : sequence of str
        Texts that never may be shown; what looks like a secret by its form is blotted out, too.
    """
    logger = logging.getLogger(name)
    scrubber = next((each for each in logger.filters if isinstance(each, _Scrubber)), None)
    if scrubber is None:
        scrubber = _Scrubber()
        logger.addFilter(scrubber)
    # A secret of a few letters stands in ordinary words, and is none.
    long = [each for each in secrets if len(each) >= _LEAST]
    scrubber.secrets = [*dict.fromkeys([*scrubber.secrets, *long])]
