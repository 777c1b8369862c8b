"""Networks and calibrations in files: they come back as they were, or are refused in a sentence."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.checkpoint import (
    LEARNED,
    Method,
    load_avsa,
    load_avsa_with_provenance,
    load_calibration,
    load_scorer,
    save_avsa,
    save_scorer,
    weights_path,
)
from model.errors import MediaError
from model.learned import scorers_for
from model.networks.avsa import PUBLISHED, AvsaConfig, AvsaNetwork
from model.networks.equivariant import EquivariantScorer
from model.viewpoints import Sound, SoundInput

TINY = AvsaConfig(
    widths=(4, 4, 8, 8), embedding=6, translator="mlp", depth=1, viewpoints=2, crop_px=32,
    n_frames=4, sound=SoundInput(Sound.STEREO, n_bands=24, magnitude=True), sound_s=0.25,
)  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "avsa.safetensors"
    save_avsa(path, AvsaNetwork(TINY), {"translated": False, "data": "none"})
    return path


def test_an_avsa_network_comes_back_as_it_was(tmp_path: Path) -> None:
    network = AvsaNetwork(TINY)
    network.encode_video(torch.rand(2, 2, 3, 4, 32, 32))  # statistics of a batch

    save_avsa(tmp_path / "avsa.safetensors", network, {"translated": False})
    again, provenance = load_avsa_with_provenance(tmp_path / "avsa.safetensors")

    assert again.config == TINY
    assert not again.training
    assert provenance == {"translated": False}
    states, before = again.state_dict(), network.state_dict()
    assert {name: value.dtype for name, value in states.items()} == {
        name: value.dtype for name, value in before.items()
    }
    assert all(torch.equal(states[name], before[name]) for name in before)
    assert [path.name for path in tmp_path.iterdir()] == ["avsa.safetensors"]


def test_the_published_sizes_come_back(tmp_path: Path) -> None:
    narrow = replace(PUBLISHED, widths=(4, 4, 8, 8))
    save_avsa(tmp_path / "a.safetensors", AvsaNetwork(narrow), {})

    assert load_avsa(tmp_path / "a.safetensors").config == narrow


def test_what_is_no_avsa_network_is_refused(tmp_path: Path, kept: Path) -> None:
    other, notes, cut = (tmp_path / f"{name}.safetensors" for name in ("other", "notes", "cut"))
    save_scorer(other, EquivariantScorer(), {})
    notes.write_text("hello")
    cut.write_bytes(kept.read_bytes()[:-100])

    for path, reason in ((other, "equivariant, not avsa"), (notes, ""), (cut, "")):
        with pytest.raises(MediaError, match=rf"{path.name} is not an AVSA network.*{reason}"):
            load_avsa(path)
    with pytest.raises(MediaError, match=r"missing\.safetensors cannot be read"):
        load_avsa(tmp_path / "missing.safetensors")
    with pytest.raises(MediaError, match="avsa, not equivariant"):
        load_scorer(kept)


def test_a_network_with_another_tensor_is_refused_in_one_line(tmp_path: Path, kept: Path) -> None:
    tensors = load_file(kept)
    about = {
        "network": "avsa", "provenance": "{}",
        "config": json.dumps({"widths": [4, 4, 8, 8], "sound": {"sound": "mono"}}),
    }  # fmt: skip
    save_file(tensors, tmp_path / "wrong.safetensors", metadata=about)

    with pytest.raises(MediaError) as raised:
        load_avsa(tmp_path / "wrong.safetensors")

    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"config": {"viewpoints": 0}}, "viewpoints is 0, and has to be above 0"),
        ({"config": {"frame_rate_hz": -8.0}}, "frame_rate_hz is -8.0,"),
        ({"config": {"widths": [4, 4, 0, 8]}}, "narrowest width is 0,"),
        ({"config": {"sound": "mono"}}, "not a mapping|indices must be"),
        ({"provenance": []}, "not both tables"),
    ],
)
def test_a_network_that_tells_nonsense_of_itself_is_refused(
    kept: Path, damage: dict[str, Any], words: str
) -> None:
    with safe_open(kept, "pt") as file:
        about = file.metadata()
    config = json.loads(about["config"]) | damage.get("config", {})
    about |= {"config": json.dumps(config)}
    about |= {"provenance": json.dumps(damage.get("provenance", {}))}
    save_file(load_file(kept), kept, metadata=about)

    with pytest.raises(MediaError, match=rf"is not an AVSA network of this version: .*({words})"):
        load_avsa(kept)


def test_a_network_that_has_come_apart_is_refused(tmp_path: Path) -> None:
    """As of a training run that diverged: all that it says would be NaN."""
    network = EquivariantScorer()
    name, weights = next(iter(network.named_parameters()))
    weights.data.view(-1)[0] = math.nan
    save_scorer(tmp_path / "nan.safetensors", network, {})

    with pytest.raises(MediaError, match=rf"not all numbers of its {name} are finite"):
        load_scorer(tmp_path / "nan.safetensors")


def test_a_failed_write_leaves_what_was_there(kept: Path) -> None:
    before = kept.read_bytes()

    with pytest.raises(TypeError):
        save_avsa(kept, AvsaNetwork(TINY), {"data": object()})

    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_calibration_of_another_scorer_is_refused() -> None:
    shipped = load_calibration()
    assert len(scorers_for(shipped)) == 2

    with pytest.raises(MediaError, match=r"SHA-256 000000.*training\.calibrate"):
        scorers_for(replace(shipped, scorer="0" * 64))
    with pytest.raises(MediaError, match=r"\(none\)"):
        scorers_for(replace(shipped, scorer=""))


def test_a_shipped_calibration_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.checkpoint.weights_path", lambda _method: tmp_path / "fused.json")

    with pytest.raises(MediaError, match=r"fused\.json cannot be read"):
        load_calibration()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda fields: fields.update(weights=[1]), "list"),
        (lambda fields: fields["weights"].update(learned="1"), "str"),
        (lambda fields: fields.update(confidence_slope=None), "NoneType"),
        (lambda fields: fields.update(pooling_cap=math.nan), "not all of its numbers are finite"),
        (lambda fields: fields.update(arc_mass=10**400), "too large"),
        (lambda fields: fields.update(arc_mass=2), "arc_mass is 2, and has to be above 0, to 1"),
        (lambda fields: fields.update(arc_mass=0), "arc_mass is 0,"),
        (lambda fields: fields.update(pooling_cap=0), "pooling_cap is 0, and has to be above 0"),
        (lambda fields: fields.update(pooling_exponent=1.5), "pooling_exponent is 1.5,"),
        (lambda fields: fields.update(least_confidence=-1), "least_confidence is -1,"),
        (lambda fields: fields["gates"]["evidence"].update(hum=1.0), "weigh hum"),
        (lambda fields: fields.update(weights={}), "only the cue learned tells"),
        (lambda fields: fields.update(scorer=5), "scorer is 5"),
    ],
)
def test_a_damaged_calibration_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], words: str
) -> None:
    fields = json.loads(weights_path(Method.FUSED).read_bytes())
    damage(fields)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(fields))

    with pytest.raises(MediaError, match=rf"damaged\.json is not a calibration.*{words}"):
        load_calibration(path)


def test_a_calibration_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)

    with pytest.raises(MediaError, match="is not a calibration"):
        load_calibration(path)


@pytest.mark.parametrize(("bias", "share"), [(-1e9, 0.0), (0.0, 0.5), (1e9, 1.0)])
def test_a_gate_may_be_as_sure_as_it_likes(bias: float, share: float) -> None:
    shipped = load_calibration()
    gated = replace(shipped, gates={LEARNED: {"bias": bias}})

    assert gated.weight(LEARNED, {}) == share * shipped.weights[LEARNED]
