"""What a study came to: derived from its cells, whenever asked, and needing no model."""

from dataclasses import dataclass, field
from pathlib import Path

from headsurgeon.files import header, write_json
from headsurgeon.results import ShownInNotebooks
from headsurgeon.study.decision_rule import Decision, Share, decisions_of, shares_of
from headsurgeon.study.results import StudyResults, load_results

RESULT = "study.json"


@dataclass(frozen=True, eq=False)
class StudyResult(ShownInNotebooks):
    """What a study came to; `study.json` holds the same.

    Attributes:
        results: the cells.
        decisions: what each contrast came to, on each text.
        shares: of what could be recovered, for each trained arm.
    """

    results: StudyResults
    decisions: list[Decision] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.results.folder


def conclude(folder: Path | str) -> StudyResult:
    """Derives `study.json` from the cells, finished or not; no model is needed."""
    results = load_results(folder)
    result = StudyResult(results, decisions_of(results), shares_of(results))
    write_json(
        results.folder / RESULT,
        {
            **header("study_result"),
            "study": results.study.model_dump(mode="json"),
            "decisions": [each.model_dump(mode="json") for each in result.decisions],
            "shares": [each.model_dump(mode="json") for each in result.shares],
            "failed": {str(cell.cell): cell.failure for cell in results.failed},
            "missing": [str(cell) for cell in results.missing],
        },
    )
    return result
