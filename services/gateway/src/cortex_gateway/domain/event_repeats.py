"""Events of a stream that say the same again: those of one stream mostly differ in the text of one string alone."""

from typing import Final

from cortex_gateway.domain.levelling.names import Renames, rename

_STRINGS: Final = (b'"content":"', b'"text":"')
_BACKSLASH: Final = 0x5C


class EventRepeats:
    """Recognises an event that differs from the one before it in nothing but the text of that string.

    The text is judged by what it does not hold, a quote or a line break: whatever it says, it is one string inside one
    event, and nothing that begins or ends a member or an event.
    """

    __slots__ = ("_after", "_after_out", "_before", "_before_out", "_renames")

    def __init__(self, renames: Renames) -> None:
        self._renames = renames
        self._before = self._before_out = b""
        self._after = self._after_out = b""

    def learn(self, event: bytes) -> None:
        """Take over an event that needed no change but the renaming, with the empty line that ends it."""
        for name in _STRINGS:
            at = event.find(name)
            if at >= 0:
                begin = at + len(name)
                end = event.find(b'"', begin)
                if end >= 0 and event[end - 1] != _BACKSLASH:
                    self._before, self._after = event[:begin], event[end:]
                    self._before_out = rename(self._before, self._renames)
                    self._after_out = rename(self._after, self._renames)
                return

    def renamed(self, chunk: bytes) -> bytes:
        """The event for the client when `chunk` is one such event, else nothing."""
        before, after = self._before, self._after
        begin, end = len(before), len(chunk) - len(after)
        if not before or end < begin or not chunk.startswith(before) or chunk[end:] != after:
            return b""
        text = chunk[begin:end]
        if text.find(b'"') >= 0 or text.find(b"\n") >= 0:
            return b""
        return self._before_out + text + self._after_out if self._renames else chunk
