"""The check of annotations that all other tests run under finds what it is there to find."""

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from headsurgeon.arch import Projection
from headsurgeon.attention.split_heads import split_heads
from tests.checking import checked, names_a_shape


@checked(typechecker=beartype)
def added(left: Float[Tensor, "layer head"], right: Float[Tensor, "layer head"]) -> Tensor:
    return left + right


@checked(typechecker=beartype)
def listed(maps: list[Float[Tensor, "layer head"]], heads: int) -> Float[Tensor, "layer"]:
    return maps[0][:, :heads].sum(dim=1)


@checked(typechecker=beartype)
def doubled(count: int) -> int:
    return "twice" if count < 0 else 2 * count  # type: ignore[return-value]


def test_one_name_is_one_size_in_all_arguments() -> None:
    assert added(torch.ones(2, 3), torch.ones(2, 3)).sum() == 12
    with pytest.raises(TypeCheckError):
        added(torch.ones(2, 3), torch.ones(1, 3))


def test_shapes_inside_of_other_types_count() -> None:
    assert listed([torch.ones(2, 3)], 2).tolist() == [2, 2]
    with pytest.raises(TypeCheckError):
        listed([torch.ones(2)], 2)
    assert names_a_shape(dict[str, tuple[Float[Tensor, "head"], ...]])
    assert not names_a_shape(dict[str, tuple[Tensor, ...]])


def test_types_without_shapes_are_checked_on_the_way_in_and_out() -> None:
    assert doubled(2) == 4
    with pytest.raises(BeartypeCallHintViolation):
        doubled("2")  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintViolation):
        doubled(-1)


def test_functions_and_dataclasses_of_the_package_are_under_the_check() -> None:
    projection = Projection("attention.q", starts=(0, 2))
    assert split_heads(torch.ones(1, 3, 4), projection, 2).shape == (1, 2, 3, 2)
    with pytest.raises(TypeCheckError):
        split_heads(torch.ones(3, 4), projection, 2)
    with pytest.raises(BeartypeCallHintViolation):
        projection.path("0")  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintViolation):
        Projection("attention.q", starts=0)  # type: ignore[arg-type]
