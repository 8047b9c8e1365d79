"""Model files: round trips, and settings from a stranger."""

import numpy as np
import pytest

from tinyconvlstm.files import ModelFileError, save
from tinyconvlstm.models import Forecaster
from tinyconvlstm.models.storage import MODELS, describe, load_model, save_model


@pytest.fixture
def model():
    return Forecaster((3, 2), size=(4, 6), patch=2, kernel=(3, 1), feed=True, rng=3)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": None, "state_kernel": (3, 3)},  # a dense map has no kernel, whatever is asked for
        {"kernel": None, "head": "all"},
        {"features": (np.int64(3),), "kernel": (3, np.int32(1))},
        {"size": (5,), "kernel": 3, "peephole": "map", "channels": 2},
        {"size": (), "kernel": ()},
        {"size": (2, 4, 6), "kernel": 3, "peephole": None, "patch": 2},
    ],
)
def test_every_kind_of_settings_comes_back(tmp_path, settings):
    model = Forecaster(**{"features": (3,), "size": (4, 6), "kernel": 3, **settings})
    save_model(tmp_path / "m", model)
    again = load_model(tmp_path / "m")
    assert {name: a.shape for name, a in again.params.items()} == {
        n: a.shape for n, a in model.params.items()
    }
    assert again.head_over == model.head_over
    for name, a in model.params.items():
        np.testing.assert_array_equal(again.params[name], a)


def test_a_model_that_could_not_be_read_again_is_not_written(tmp_path, model):
    class Mine(Forecaster):
        pass

    with pytest.raises(ValueError, match=r"model is a Mine, expected one of \['Forecaster'\]"):
        save_model(tmp_path / "m", Mine((3,), size=(4, 6)))
    assert not list(tmp_path.iterdir())


def test_a_new_model_is_one_line(tmp_path, model, monkeypatch):
    class Mine(Forecaster):
        pass

    monkeypatch.setitem(MODELS, "Mine", MODELS["Forecaster"]._replace(build=Mine))
    save_model(tmp_path / "m", Mine((3,), size=(4, 6)))
    assert type(load_model(tmp_path / "m")) is Mine


def test_nothing_is_built_before_the_count_is_right(tmp_path, model, monkeypatch):
    def build(**settings):
        raise AssertionError("built")

    monkeypatch.setitem(MODELS, "Forecaster", MODELS["Forecaster"]._replace(build=build))
    save(tmp_path / "m", model.params, {**describe(model), "settings": {"features": [2**30]}})
    with pytest.raises(ModelFileError, match="its settings make"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path, model, dtype):
    path = tmp_path / "model.safetensors"
    model = model.astype(dtype)
    save_model(path, model)
    again = load_model(path)
    assert again.config == model.config
    for name, a in model.params.items():
        assert again.params[name].dtype == dtype
        np.testing.assert_array_equal(again.params[name], a)
    x = np.random.default_rng(0).random((2, 1, 1, 4, 6)).astype(dtype)
    np.testing.assert_array_equal(again.predict(x, 3), model.predict(x, 3))


def test_models_of_a_gpu_are_saved_from_there(tmp_path, model, backend):
    save_model(tmp_path / "m", model.to_backend(backend))
    np.testing.assert_array_equal(load_model(tmp_path / "m").params["head.w"], model.params["head.w"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Oracle"}, "class 'Oracle'"),
        ({"class": 3}, "class '3'"),
        ({"settings": 7}, "holds no model's settings"),
        ({"settings": {"features": [3, 2], "colour": 1}}, "unknown settings"),
        ({"settings": {"features": [10**9], "size": [4, 6]}}, "its settings make"),
        ({"settings": {"features": [3] * 999, "size": [4, 6]}}, "its settings make"),
        ({"settings": {"features": [3] * 10**5, "size": [4, 6]}}, r"wrong type or size: features = \[3, 3"),
        ({"settings": {"features": [-3, 2]}}, "features"),
        ({"settings": {"features": [True, 2]}}, "features"),
        ({"settings": {"features": [1e308]}}, "features"),
        ({"settings": {"features": [3, 2], "patch": 0}}, "patch = 0"),
        ({"settings": {"features": [3, 2], "size": [4] * 10**5, "patch": 10**9}}, "size"),
        ({"settings": {"features": [3, 2], "kernel": [2**62] * 10**4}}, "kernel"),
        ({"settings": {"features": [3, 2], "kernel": 3.0}}, "kernel = 3.0"),
        ({"settings": {"features": [3, 2], "kernel": [[3], 3]}}, "kernel"),
        ({"settings": {"features": [3, 2], "peephole": {}}}, "peephole"),
        ({"settings": {"features": [3, 2], "feed": "yes"}}, "feed"),
        ({"settings": {"features": [3, 2], "head": ["all"]}}, "head"),
        ({"settings": {"features": "many"}}, "wrong type"),
        ({"settings": {"features": [3, 2], "size": 5}}, "wrong type"),
        ({"settings": {}}, "wrong type"),
    ],
)
def test_hostile_settings_are_one_line_and_allocate_nothing(tmp_path, model, change, message):
    path = tmp_path / "model.safetensors"
    save(path, model.params, {**describe(model), **change})
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_equal_count_but_other_shapes_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    other = {**model.config, "kernel": [1, 3]}
    save(path, model.params, {"class": "Forecaster", "settings": other})
    with pytest.raises(ModelFileError, match="has shape"):
        load_model(path)
    save(path, model.params, {"class": "Forecaster", "settings": {**model.config, "peephole": "matrix"}})
    with pytest.raises(ModelFileError, match=r"peephole|settings make"):
        load_model(path)


def test_wrong_dtypes_and_files_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save(path, {n: a.astype(np.int32) for n, a in model.params.items()}, describe(model))
    with pytest.raises(ModelFileError, match="expected float32 or float64"):
        load_model(path)
    with pytest.raises(ModelFileError, match="no-such"):
        load_model(tmp_path / "no-such")
