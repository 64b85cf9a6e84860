"""Text embeddings written to a file, as pre-training and a person read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ponder_cli.commands.text_embeddings import text_embeddings
from ponderv2.datasets.vocabulary import CLASS_NAMES
from ponderv2.errors import OutputError
from ponderv2.heads import text_embeddings as clip_text
from ponderv2.heads.config import ClipEmbeddingsConfig, FileEmbeddingsConfig
from ponderv2.heads.text_embeddings import embedding_rows
from ponderv2.workflows import text_embeddings as text


@pytest.fixture
def sentences_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """In place of a model: a sentence becomes numbers that follow from its letters."""
    seen: list[str] = []

    def embed(model: str, texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return torch.stack([torch.tensor([float(len(t)), t.count("a"), t.count("e"), 1.0]) for t in texts])

    monkeypatch.setattr(clip_text, "_embed", embed)
    monkeypatch.setenv("PONDER_CACHE", str(tmp_path / "cache"))
    return seen


def test_the_command_writes_what_a_preset_reads(
    tmp_path: Path, sentences_seen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.safetensors"
    text_embeddings("some/model", out, json=tmp_path / "result.json")
    assert len(sentences_seen) == 36 * 21 and sentences_seen[0] == "itap of a wall"
    rows = embedding_rows(FileEmbeddingsConfig(path=out), (36, 4))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(36))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["n_names"], result["n_channels"], result["n_templates"]) == (36, 4, 21)
    assert set(result["most_alike"]) <= set(CLASS_NAMES)
    assert "rows.safetensors" in "".join(capsys.readouterr()).replace("\n", "")


def test_names_and_sentences_can_be_chosen(tmp_path: Path, sentences_seen: list[str]) -> None:
    config = ClipEmbeddingsConfig(model="some/model", templates=("the {}",))
    result = text.run(config, ("cat", "dog"), tmp_path / "pets.safetensors")
    assert sentences_seen == ["the cat", "the dog"] and set(result.most_alike) == {"cat", "dog"}
    first, second = embedding_rows(FileEmbeddingsConfig(path=result.file), (2, 4))
    assert result.similarity == pytest.approx(float(first @ second), abs=1e-6)


@pytest.mark.parametrize(("names", "file"), [(("one",), "x.safetensors"), (("one", "two"), "x.npy")])
def test_what_cannot_be_written_is_said(tmp_path: Path, names: tuple[str, ...], file: str) -> None:
    with pytest.raises(OutputError):
        text.run(ClipEmbeddingsConfig(model="some/model"), names, tmp_path / file)
