"""What a GGUF file says about its model is honoured, or the file is refused in words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")
from gguf import GGUFWriter, RopeScalingType

import headsurgeon as hs
from headsurgeon.errors import ModelError
from tests.pico_families import pico_family
from tests.pico_gguf import write_gguf


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a sound file into which one more thing has been put."""

    def write(more: Callable[[GGUFWriter], object]) -> str:
        finish = GGUFWriter.write_header_to_file

        def with_more(writer: GGUFWriter, *arguments: object) -> None:
            more(writer)
            finish(writer)

        monkeypatch.setattr(GGUFWriter, "write_header_to_file", with_more)
        path = tmp_path / "model.gguf"
        write_gguf(path, pico_family("llama"))
        return str(path)

    return write


def _linear(writer: GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (_linear, "rope.scaling.factor = 4"),
        (lambda w: w.add_rope_scaling_type(RopeScalingType.YARN), "rope.scaling.type = yarn"),
        (lambda w: w.add_sliding_window(7), "sliding_window = 7"),
        (lambda w: w.add_logit_scale(0.5), "logit_scale = 0.5"),
        (lambda w: w.add_attn_logit_softcapping(30.0), "softcapping = 30"),
        (lambda w: w.add_key_length(6), "key_length = 6"),
        (lambda w: w.add_type("adapter"), "adapter"),
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32)), "attn_q.bias"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.full(4, 2, np.float32)), "rope_freqs"),
        (lambda w: w.add_tensor("v.patch.weight", np.ones(4, np.float32)), "v.patch.weight"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    written: Callable[..., str], more: Callable[[GGUFWriter], object], named: str
) -> None:
    with pytest.raises(ModelError, match=named):
        hs.load(written(more))


def _neutral(writer: GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.NONE)
    writer.add_key_length(8)
    writer.add_value_length(8)
    writer.add_rope_dimension_count(8)
    writer.add_expert_count(0)
    writer.add_author("somebody")
    writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))


def test_what_changes_nothing_is_no_reason_to_refuse(written: Callable[..., str]) -> None:
    hs.load(written(_neutral))


def test_an_adapter_beside_a_gguf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, pico_family("llama"))
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="holds an adapter"):
        hs.load(str(path))
