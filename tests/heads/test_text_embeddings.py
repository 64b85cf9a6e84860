"""Class names as vectors: CLIP against its equations written out, the cache, files, orthogonal directions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.errors import PresetError, ResourceError
from ponderv2.heads import text_embeddings as clip_text
from ponderv2.heads.config import (
    ClipEmbeddingsConfig,
    FileEmbeddingsConfig,
    OrthogonalEmbeddingsConfig,
)
from ponderv2.heads.text_embeddings import (
    cache_file,
    clip_embeddings,
    embedding_rows,
    mean_over_templates,
    orthogonal_rows,
    sentences,
)
from ponderv2.models.config import TextTargetConfig
from ponderv2.models.pretext import text_embeddings
from ponderv2.torchvision_operators import repair_torchvision

NAMES = ("wall", "shower curtain", "tv")
TEMPLATES = ("a photo of a {}", "a {} in a room", "{}")
WIDTH, HEADS, LAYERS, OUT = 16, 2, 2, 8


@pytest.fixture
def clip_folder(tmp_path: Path, rng: torch.Generator) -> Path:
    """A small CLIP text model with random weights, with a tokenizer of single letters."""
    repair_torchvision()
    transformers = pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    folder = tmp_path / "clip"
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = (
        transformers.CLIPTokenizer(
            vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=40
        )
        if transformers.__version__.startswith("5")
        else transformers.CLIPTokenizerFast(
            vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"), model_max_length=40
        )
    )
    tokenizer.save_pretrained(folder)
    settings = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=24,
        projection_dim=OUT,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=40,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    model = transformers.CLIPTextModelWithProjection(settings)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.3
    model.save_pretrained(folder)
    return folder


def state_of(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    state = load_file(str(folder / "model.safetensors"))
    return {name.removeprefix("text_model."): value for name, value in state.items()}


def by_hand(state: dict[str, Tensor], text: str) -> Tensor:
    """CLIP's text encoder (Radford et al. 2021, section 2.4): one sentence, one letter a token."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    numbers = [52]
    for word in text.split():
        numbers += [ord(letter) - ord("a") for letter in word[:-1]] + [26 + ord(word[-1]) - ord("a")]
    numbers.append(53)
    x = state["embeddings.token_embedding.weight"][numbers]
    x = x + state["embeddings.position_embedding.weight"][: len(numbers)]
    later = torch.triu(torch.full((len(numbers), len(numbers)), -math.inf), diagonal=1)
    for layer in range(LAYERS):
        place = f"encoder.layers.{layer}"
        y = norm(x, f"{place}.layer_norm1")
        query, key, value = (linear(y, f"{place}.self_attn.{name}_proj") for name in "qkv")
        heads = []
        for query_h, key_h, value_h in zip(*(z.chunk(HEADS, 1) for z in (query, key, value)), strict=True):
            weights = torch.softmax(query_h @ key_h.T / math.sqrt(WIDTH / HEADS) + later, dim=-1)
            heads.append(weights @ value_h)
        x = x + linear(torch.cat(heads, 1), f"{place}.self_attn.out_proj")
        inner = linear(norm(x, f"{place}.layer_norm2"), f"{place}.mlp.fc1")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{place}.mlp.fc2")
    return norm(x, "final_layer_norm")[-1] @ state["text_projection.weight"].T


def test_clip_rows_equal_the_equations(clip_folder: Path, tmp_path: Path) -> None:
    config = ClipEmbeddingsConfig(model=str(clip_folder), templates=TEMPLATES, cache=tmp_path / "cache")
    rows = embedding_rows(config, (3, OUT), NAMES)
    state = state_of(clip_folder)
    expected = []
    for name in NAMES:
        unit = torch.stack([F.normalize(by_hand(state, t.format(name)), dim=0) for t in TEMPLATES])
        expected.append(F.normalize(unit.mean(0), dim=0))
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_second_call_reads_the_cache(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClipEmbeddingsConfig(model=str(clip_folder), templates=TEMPLATES, cache=tmp_path / "cache")
    first = clip_embeddings(config, NAMES)

    def never(*_: Any) -> Tensor:
        raise AssertionError("the model is not to be asked again")

    monkeypatch.setattr(clip_text, "_embed", never)
    assert torch.equal(clip_embeddings(config, NAMES), first)
    with pytest.raises(AssertionError):
        clip_embeddings(config, (*NAMES, "lamp"))


def test_the_cache_knows_model_templates_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    config = ClipEmbeddingsConfig(model=str(folder), templates=("a {}",), cache=tmp_path)
    first = cache_file(config, NAMES)
    assert cache_file(config, NAMES) == first and first.parent == tmp_path / "text"
    others = [
        cache_file(config, NAMES[:2]),
        cache_file(config.model_copy(update={"templates": ("the {}",)}), NAMES),
        cache_file(config.model_copy(update={"model": "openai/clip-vit-base-patch16"}), NAMES),
    ]
    (folder / "config.json").write_text("{ }")
    assert len({first, *others, cache_file(config, NAMES)}) == 5


def test_templates_are_averaged_per_name_not_across_names(rng: torch.Generator) -> None:
    """The published code reshapes name-major rows to (template, name): with it, rows mix names."""
    embedded = torch.randn(6, 5, generator=rng)
    unit = embedded / embedded.norm(dim=1, keepdim=True)
    right = torch.stack([unit[:3].mean(0), unit[3:].mean(0)])
    rows = mean_over_templates(embedded, 3)
    torch.testing.assert_close(rows, right / right.norm(dim=1, keepdim=True))
    scrambled = F.normalize(unit.reshape(3, 2, 5).mean(0), dim=1)
    assert (rows - scrambled).abs().max() > 0.1
    assert sentences(("a {}", "the {}"), ("x", "y")) == ["a x", "the x", "a y", "the y"]


def test_without_the_extra_the_command_to_install_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    config = ClipEmbeddingsConfig(model=str(tmp_path / "nothing"), cache=tmp_path)
    with pytest.raises(ResourceError) as caught:
        clip_embeddings(config, NAMES)
    assert "ponder[text]" in str(caught.value.fix)


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PresetError, match=r"config\.json is missing"):
        clip_embeddings(ClipEmbeddingsConfig(model=str(tmp_path / "empty"), cache=tmp_path), NAMES)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(PresetError, match="no CLIP text model"):
        clip_embeddings(ClipEmbeddingsConfig(model=str(tmp_path / "empty"), cache=tmp_path), NAMES)


@pytest.mark.parametrize("model", ["./nothing", "/nothing/here", "models/of/mine", "~/nothing", "nothing"])
def test_what_looks_like_a_path_is_never_looked_for_on_the_network(model: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    with pytest.raises(PresetError, match="no folder"):
        clip_embeddings(ClipEmbeddingsConfig(model=model, cache=tmp_path), NAMES)


def test_names_have_to_be_known(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="names of the 3 classes"):
        text_embeddings(TextTargetConfig(n_classes=3, embeddings={"kind": "clip", "model": "none"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_rows_of_a_file_are_made_unit_vectors(tmp_path: Path, rng: torch.Generator, suffix: str) -> None:
    rows = torch.randn(4, 6, generator=rng) * 3
    path = tmp_path / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, rows.numpy())
    else:
        clip_text.write_embeddings(path, rows, {})
    read = embedding_rows(FileEmbeddingsConfig(path=path), (4, 6))
    torch.testing.assert_close(read, rows / rows.norm(dim=1, keepdim=True))
    with pytest.raises(PresetError, match=r"expected \(4, 7\)"):
        embedding_rows(FileEmbeddingsConfig(path=path), (4, 7))


@pytest.mark.parametrize("name", ["missing.npy", "missing.safetensors", "text.npy", "text.safetensors"])
def test_files_that_hold_nothing_are_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.npy").write_text("none")
    (tmp_path / "text.safetensors").write_text("none")
    with pytest.raises(PresetError):
        embedding_rows(FileEmbeddingsConfig(path=tmp_path / name), (4, 6))


def test_orthogonal_rows_are_orthogonal_and_always_the_same() -> None:
    rows = orthogonal_rows(36, 512)
    torch.testing.assert_close(rows @ rows.T, torch.eye(36), rtol=0, atol=1e-5)
    assert torch.equal(rows, embedding_rows(OrthogonalEmbeddingsConfig(), (36, 512)))


def test_short_forms_of_settings_mean_what_they_did() -> None:
    def kind(value: object) -> str:
        return TextTargetConfig(n_classes=3, embeddings=value).embeddings.kind  # type: ignore[arg-type]

    assert [kind("orthogonal"), kind("rows.npy"), kind(Path("rows.npy"))] == ["orthogonal", "file", "file"]
    assert TextTargetConfig(n_classes=3).embeddings == OrthogonalEmbeddingsConfig()


@pytest.mark.parametrize("templates", [(), ("no place",), ("{} {}",)])
def test_sentences_without_one_place_for_the_name_are_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="a template has one"):
        ClipEmbeddingsConfig(model="x", templates=templates)
