"""What the demo tells who asks it for a story: long enough to watch it grow and to stop it, with all of the Markdown in
it that models write."""

import re
from dataclasses import dataclass
from pathlib import Path

#: A Chinese character or a word, with what is behind it.
_PIECE = re.compile(r"[\u4e00-\u9fff][^\w\s]*\s*|[^\s\u4e00-\u9fff]+\s*")


@dataclass(frozen=True, slots=True)
class Story:
    """``pace``: how many of its pieces are told in a second."""

    text: str
    pace: float

    def pieces(self) -> list[str]:
        return _PIECE.findall(self.text)


def story_for(heard: str) -> Story | None:
    """In the language in which somebody asks for one."""
    if "故事" in heard:
        return _CHINESE
    return _ENGLISH if re.search(r"\bstor(y|ies)\b", heard, re.IGNORECASE) else None


def _story(language: str, pace: float) -> Story:
    return Story(Path(__file__).with_name(f"story.{language}.md").read_text("utf-8").strip(), pace)


_ENGLISH = _story("en", pace=20)
_CHINESE = _story("zh", pace=15)
