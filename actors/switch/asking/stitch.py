"""Joins the halves of characters that were cut in two, and sends on whole ones only."""

from __future__ import annotations

import codecs

from actors.switch.asking.failure import ProviderFailed

Utf8 = codecs.getincrementaldecoder("utf-8")


class Stitch:
    r"""One text that comes in pieces, as `json.loads` gives them after PEP 383.

    A character may be cut in two ways: between the escapes of a pair (`\\ud83e` and `\\udd91`), or between its bytes,
    which then are lone surrogates from U+DC80 to U+DCFF.
    """

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        """The text that is whole by now; half a character waits. Raises ProviderFailed when it can never be whole."""
        if not self._half and _is_whole(text):
            return text
        text, self._half = self._half + text, ""
        try:
            return self._paired(text)
        except UnicodeError:
            raise ProviderFailed("it sent half a character") from None

    def end(self) -> None:
        """Raises ProviderFailed when half a character still waits."""
        if self._half:
            raise ProviderFailed("it ended in half a character")

    def _paired(self, text: str) -> str:
        """Pairs of escapes first: the second of a pair may look like a byte."""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        decoder = Utf8()
        joined = decoder.decode(whole.encode("utf-8", "surrogateescape"))
        waiting = decoder.getstate()[0]
        if waiting:
            if self._half:
                raise UnicodeError("bytes cannot go on with an escape")
            self._half = waiting.decode("utf-8", "surrogateescape")
        return joined


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
