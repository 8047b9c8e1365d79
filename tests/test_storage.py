"""Model files: round trips, and settings from a stranger."""

import numpy as np
import pytest

from tinyconvlstm.files import ModelFileError, save
from tinyconvlstm.models import Forecaster
from tinyconvlstm.models.storage import describe, load_model, save_model


@pytest.fixture
def model():
    return Forecaster((3, 2), size=(4, 6), patch=2, kernel=(3, 1), feed=True, rng=3)


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
        ({"settings": {"features": [3] * 10**5, "size": [4, 6]}}, "its settings make"),
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
