"""What README and the pages of docs show: their blocks of commands, of Python, and of files."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# a line of its own before a block that cannot run everywhere
NEEDS = re.compile(r"^\*Needs [^*]+\*$", re.MULTILINE)
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, what stands in it, and whether it needs more."""

    page: Path
    language: str
    text: str
    needs: bool

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if its first line says so: `# mine.yaml`."""
        named = re.match(r"# ([\w-]+\.(?:yaml|py))\n", self.text)
        return named[1] if named else None

    def commands(self) -> list[tuple[list[str], str]]:
        """The words of each `headsurgeon …` in it, each with what it is shown to print."""
        if self.language not in ("sh", "console"):
            return []
        lines = self.text.replace("\\\n", " ")
        if self.language == "console":
            found = re.findall(r"^\$ headsurgeon (.*)\n((?:(?!\$ ).*\n)*)", lines, re.MULTILINE)
        else:
            found = [(line, "") for line in re.findall(r"^headsurgeon (.*)$", lines, re.MULTILINE)]
        return [(shlex.split(line, comments=True), shown) for line, shown in found]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in their order, of these languages, or all."""
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        inside = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        before = text[end : match.start()]
        found.append(Block(page, match[2], inside, bool(NEEDS.search(before))))
        end = match.end()
    return [block for block in found if not languages or block.language in languages]


def run_python(text: str, page: str, names: dict[str, object]) -> None:
    """Executes a block of Python of our own documentation."""
    exec(compile(text, page, "exec"), names)
