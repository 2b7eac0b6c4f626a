"""What must be said wherever the package shows its own sick model."""


def planted_remark(model: str) -> str:
    """A sentence for a model whose collapse was planted; empty for others."""
    from headsurgeon.demo.settings import PLANTED_MODEL
    from headsurgeon.demo.wording import PLANTED_SHORT

    return PLANTED_SHORT if model == PLANTED_MODEL else ""
