"""What flows through the commands of a script: text on the way in and on the way out, as far as it is known."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Sink:
    """Collects what is written; None stands for text that is not known.

    `level` is how many unsure branches were open when it was: what is written deeper may be written or not.
    """

    level: int
    parts: list[str | None] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """All that was written, or None if that is not known."""
        return None if None in self.parts else "".join(part or "" for part in self.parts)


@dataclass(slots=True)
class Source:
    """What a command can read: `text` from `at` on, or None if that is not known."""

    text: str | None
    at: int = 0

    def rest(self) -> str | None:
        """Take all that is left."""
        if self.text is None:
            return None
        left, self.at = self.text[self.at :], len(self.text)
        return left

    def line(self) -> tuple[str | None, bool | None]:
        """Take a line without its end; the truth says whether there was a whole one, None if that is not known."""
        if self.text is None:
            return None, None
        if self.at >= len(self.text):
            return "", False
        end = self.text.find("\n", self.at)
        line = self.text[self.at :] if end < 0 else self.text[self.at : end]
        self.at += len(line) + 1
        return line, end >= 0
