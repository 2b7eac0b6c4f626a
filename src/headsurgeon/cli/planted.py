"""What must be said wherever the package shows its own sick model."""


def planted_remark(model: str) -> str:
    """A sentence for a model whose collapse was planted; empty for others."""
    from headsurgeon.models.planted import is_planted
    from headsurgeon.report.wording import PLANTED_SHORT

    return PLANTED_SHORT if is_planted(model) else ""
