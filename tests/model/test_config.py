"""A configuration survives being written down, and what cannot work is refused by name."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from flexivid.model.config import OLDER_VALUES, PRESETS, FlexiDiTConfig
from flexivid.patching.shapes import PatchMode


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_written_and_read_is_the_same(name, attention):
    config = FlexiDiTConfig.preset(name, modes=["2x4x4", "4x8x8"], attention=attention, num_classes=7, mlp_ratio=3.5)
    read = FlexiDiTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert hash(read) == hash(config)
    assert config.to_dict()["modes"] == ["2x4x4", "4x8x8"]
    assert config.hidden == 3.5 * config.width


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [("S", 384, 12, 6), ("B", 768, 12, 12), ("L", 1024, 24, 16), ("XL", 1152, 28, 16)],
)
def test_presets_are_those_of_dit(name, width, depth, heads):
    """DiT (2212.09748), table 1."""
    config = FlexiDiTConfig.preset(name)
    assert (config.width, config.depth, config.num_heads, config.mlp_ratio) == (width, depth, heads, 4)


def test_modes_in_every_form_and_the_names_of_the_native_one():
    config = FlexiDiTConfig(modes=["1x2x2", PatchMode(2, 4, 4), (1, 4, 4)])
    assert config.modes == ((1, 2, 2), (2, 4, 4), (1, 4, 4))
    assert {type(mode) for mode in config.modes} == {PatchMode}
    for native in (None, "native", "1x2x2", PatchMode(1, 2, 2)):
        assert config.mode(native) == config.native == (1, 2, 2)
    assert config.mode("2x4x4") == (2, 4, 4)
    assert FlexiDiTConfig(modes="2x4x4").modes == ((2, 4, 4),)


def test_channels_out_are_those_in_unless_told():
    assert FlexiDiTConfig(in_channels=16).out_channels == 16
    assert FlexiDiTConfig(in_channels=4, out_channels=8).out_channels == 8


FAR, NEAR = ("1x2x2", "1x8x8"), ("1x2x2", "2x4x4")


@pytest.mark.parametrize(("modes", "resize"), [(FAR, "area"), (FAR, "bilinear"), (NEAR, "area"), (NEAR, "bilinear")])
def test_resize_survives_and_is_written_only_where_it_matters(modes, resize):
    config = FlexiDiTConfig(modes=modes, resize=resize)
    assert FlexiDiTConfig.from_dict(config.to_dict()) == config
    assert config.resize == (resize if modes == FAR else "area")
    assert ("resize" in config.to_dict()) == (modes == FAR and resize == "area")  # others as before there was a choice


def test_a_field_that_is_off_is_not_written():
    assert "output_conv" not in FlexiDiTConfig().to_dict()
    on = FlexiDiTConfig(output_conv=True)
    assert on.to_dict()["output_conv"]
    assert FlexiDiTConfig.from_dict(on.to_dict()) == on


def test_fields_that_stored_models_lack_mean_what_networks_did_then():
    """Where a default changes, its old value must go into ``OLDER_VALUES``."""
    assert OLDER_VALUES == {
        **{"resize": "bilinear", "output_conv": False, "text_channels": 0, "given_frames": False},
        **{"positions": "rotary", "position_span": 0.0, "time_embedding": "continuous", "modulation": "block"},
        **{"block_conditioning": False, "qk_norm": True, "attention_bias": False, "activation": "gelu"},
        **{"cross_attention": "normed", "attention_eps": 1e-6, "mlp_eps": 1e-6, "weak_detail": "none"},
    }


def test_a_config_from_before_the_choice_means_what_it_meant():
    written = {"width": 32, "depth": 1, "num_heads": 2, "modes": list(FAR)}
    assert FlexiDiTConfig.from_dict(written).resize == "bilinear"
    assert FlexiDiTConfig(**written).resize == "area"
    assert replace(FlexiDiTConfig.from_dict({"modes": list(NEAR)}), modes=FAR).resize == "area"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"width": 0}, "width=0"),
        ({"depth": 0}, "depth=0"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"out_channels": -1}, "out_channels=-1"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0"),
        ({"mlp_ratio": -4.0}, "mlp_ratio=-4.0"),
        ({"modes": []}, "modes none"),
        ({"modes": ["1x2x2", "1x2x2"]}, "modes 1x2x2, 1x2x2"),
        ({"modes": ["1x2"]}, "patch mode '1x2'"),
        ({"width": 100, "num_heads": 3}, "width=100 and num_heads=3"),
        ({"width": 8, "num_heads": 4}, "2 features .* change width / num_heads"),
        ({"width": 14, "num_heads": 2}, "7 features .* change width / num_heads"),
        ({"attention": "axial"}, "attention='axial'"),
        ({"attention_backend": "flash"}, "attention_backend='flash'"),
        ({"resize": "nearest"}, "resize='nearest'"),
    ],
)
def test_errors_name_the_field(wrong, named):
    with pytest.raises(ValueError, match=f"^got {named}") as error:
        FlexiDiTConfig(**wrong)
    assert len(str(error.value).split(";")) == 3


WHOLE = ("width", "depth", "num_heads", "in_channels", "out_channels", "num_classes")
NO_NUMBERS = ["3", 3.0, True, np.float32(3), np.bool_(True), [], {}, float("nan"), object(), np.array([1, 2])]


@pytest.mark.parametrize("name", [field.name for field in fields(FlexiDiTConfig)])
def test_any_value_of_any_field_fits_or_is_refused_by_name(name):
    for value in [None, "axial", -1, 2.5, float("inf"), b"joint", np.int64(-1), *NO_NUMBERS]:
        try:
            config = FlexiDiTConfig(**{name: value})
        except ValueError as error:
            text = str(error)
            assert text.startswith(f"got {name}=") or (name == "modes" and text.startswith(("got modes", "got patch")))
            assert len(text.split(";")) == 3
        else:
            assert (name, value) in [
                *(("num_classes", None), ("out_channels", None)),
                *(("mlp_ratio", 2.5), ("mlp_ratio", 3.0)),
                *(("gradient_checkpointing", True), ("output_conv", True), ("given_frames", True)),
                *(("block_conditioning", True), ("qk_norm", True), ("attention_bias", True)),
                *((name, value) for name in ("position_span", "attention_eps", "mlp_eps") for value in (2.5, 3.0)),
            ]
            json.dumps(config.to_dict())
    if name in WHOLE:
        for value in NO_NUMBERS:
            with pytest.raises(ValueError, match=f"^got {name}=.*expected a whole number"):
                FlexiDiTConfig(**{name: value})


def test_numbers_of_numpy_are_numbers_and_no_classes_are_none():
    plain = {"width": 32, "depth": 2, "num_heads": 2, "in_channels": 4, "num_classes": 5, "mlp_ratio": 2.0}
    others = {name: np.float32(v) if name == "mlp_ratio" else np.int64(v) for name, v in plain.items()}
    config = FlexiDiTConfig(**others, modes=np.array([[1, 2, 2], [2, 4, 4]]), output_conv=np.bool_(True))
    assert config == FlexiDiTConfig(**plain, modes=["1x2x2", "2x4x4"], output_conv=True)
    assert FlexiDiTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert FlexiDiTConfig(num_classes=None) == FlexiDiTConfig(num_classes=0) == FlexiDiTConfig()


@pytest.mark.parametrize(("key", "hint"), [("widht", "'width'"), ("mode", "'modes'"), ("zzz", "remove it")])
def test_unknown_key_names_the_nearest(key, hint):
    with pytest.raises(ValueError, match=f"got model setting '{key}'; expected one of width, .*; .*{hint}"):
        FlexiDiTConfig.from_dict({key: 1})


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="got preset 'XXL'; expected one of nano, tiny, S, B, L, XL"):
        FlexiDiTConfig.preset("XXL")
    with pytest.raises(ValueError, match=r"got mode 4x4x4; expected one the model has \(1x2x2, 2x2x2, 1x4x4, 2x4x4\)"):
        FlexiDiTConfig().mode("4x4x4")
