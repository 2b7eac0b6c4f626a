"""What must be said wherever the package shows its own sick model."""


def planted_remark(model: str) -> str:
    """A sentence for a model whose collapse was planted; empty for others."""
    from headsurgeon.demo.wording import PLANTED_SHORT
    from headsurgeon.models.catalogue import is_planted

    return PLANTED_SHORT if is_planted(model) else ""
