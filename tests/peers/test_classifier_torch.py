"""The tutorials' video classifier in PyTorch, and ours with its weights: equal logits."""

import numpy as np
import pytest

from tinyconvlstm.interop import classifier_from_pytorch, classifier_to_pytorch
from tinyconvlstm.layers import Dense, GlobalPool, Sequential
from tinyconvlstm.models import VideoClassifier, cnn_lstm, lstm_classifier

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")


class VideoLSTM(torch.nn.Module):
    """As the tutorials write it."""

    def __init__(self, inputs, hidden, layers, classes):
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.lstm = torch.nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.fc = torch.nn.Linear(hidden, classes)

    def forward(self, x):
        h0 = torch.zeros(self.layers, x.size(0), self.hidden, dtype=x.dtype)
        out, _ = self.lstm(x, (h0, torch.zeros_like(h0)))
        return self.fc(out[:, -1, :])


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-6)])
def test_a_state_dict_loads_by_name_and_gives_equal_logits(rng, layers, dtype, bound):
    torch.manual_seed(layers)
    peer = VideoLSTM(5, 7, layers, 4).to(getattr(torch, dtype))
    x = rng.standard_normal((3, 9, 5)).astype(dtype)  # (N, T, C)
    expected = peer(torch.from_numpy(x)).detach().numpy()
    model = classifier_from_pytorch(peer.state_dict())
    y = model(x.transpose(1, 0, 2))
    assert y.dtype == np.dtype(dtype)
    assert np.allclose(y, expected, rtol=0, atol=bound)


def test_padded_clips_differ_and_ours_reads_the_last_valid_step(rng):
    peer = VideoLSTM(5, 7, 2, 4).double()
    x = rng.standard_normal((2, 9, 5))
    x[0, 4:] = 0
    model = classifier_from_pytorch(peer.state_dict())
    ours = model.forward(x.transpose(1, 0, 2), lengths=[4, 9])[0]
    short = peer(torch.from_numpy(x[:1, :4])).detach().numpy()
    padded = peer(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(ours[0], short[0], rtol=0, atol=1e-12)
    assert np.allclose(ours[1], padded[1], rtol=0, atol=1e-12)
    assert not np.allclose(ours[0], padded[0], atol=1e-3)


def test_ours_leave_as_a_state_dict_that_loads(rng):
    model = lstm_classifier(5, 4, (6, 6), dtype=np.float64)
    model = model.bind({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in model.params.items()})
    state = classifier_to_pytorch(model)
    peer = VideoLSTM(5, 6, 2, 4).double()
    peer.load_state_dict({key: torch.from_numpy(a) for key, a in state.items()})
    x = rng.standard_normal((9, 3, 5))
    assert np.allclose(
        model(x), peer(torch.from_numpy(x.transpose(1, 0, 2).copy())).detach().numpy(), rtol=0, atol=1e-12
    )
    again = classifier_from_pytorch(state)
    assert all(np.array_equal(again.params[n], a) for n, a in model.params.items())


def test_other_names_and_what_does_not_fit(rng):
    peer = VideoLSTM(5, 7, 1, 4)
    state = {
        key.replace("fc", "classifier").replace("lstm", "rnn"): a for key, a in peer.state_dict().items()
    }
    assert classifier_from_pytorch(state, lstm="rnn", head="classifier").count
    with pytest.raises(ValueError, match=r"key 'rnn\.weight_ih_l0' is unknown"):
        classifier_from_pytorch(state)
    both = torch.nn.LSTM(5, 7, bidirectional=True).state_dict()
    state = {
        **{f"lstm.{key}": a for key, a in both.items()},
        "fc.weight": torch.zeros(4, 14),
        "fc.bias": torch.zeros(4),
    }
    with pytest.raises(ValueError, match="bidirectional"):
        classifier_from_pytorch(state)
    with pytest.raises(ValueError, match="expected recurrent layers and a head alone"):
        classifier_to_pytorch(cnn_lstm(1, 3))
    missing = {key: a for key, a in peer.state_dict().items() if key != "lstm.weight_hh_l0"}
    with pytest.raises(ValueError, match=r"lstm\.weight_hh_l0"):
        classifier_from_pytorch(missing)
    model = VideoClassifier(
        [lstm_classifier(2, 3, (4,)).parts["recurrent.0"]], Sequential(GlobalPool(), Dense(4, 2))
    )
    with pytest.raises(ValueError, match="head is a Sequential"):
        classifier_to_pytorch(model)
