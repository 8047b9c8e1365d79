"""A sentence about a clip: frames are read by an encoder, words written by an LSTM that looks at the frames.

    frame t:  v_t = reader(features(x_t))                          an LSTM over what a CNN sees
    start:    h_0 = tanh(W_s mean of v_t + b_s),  c_0 = 0
    word l:   context_l = attention of W_q h_(l-1) over W_k v_t    at every word anew
              h_l = LSTM(word_(l-1), context_l; h_(l-1))
              logits_l = W_o [h_l, context_l] + b_o

Sources: Vinyals et al. 2015, arXiv 1411.4555 (an LSTM writes the caption); Yao et al. 2015, arXiv
1502.08029, section 3 (attention over the frames of a video at every word).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..batch import alive_steps, check_sequence
from ..bptt import without_padding
from ..cells import LSTMCell
from ..layers.base import Grads, Layer, Rng
from ..layers.basic import Dense, Embedding
from ..ops.activations import log_softmax_forward
from ..ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..ops.gates import LSTMState
from ..parameters import Container, Parametric, prefixed
from .additive import AdditiveSaved, additive_attention_backward, additive_attention_forward


class Clip(NamedTuple):
    """What the decoder looks at while it writes; computed once a clip."""

    keys: Array  # (T, N, A)
    values: Array  # (T, N, D)
    mask: Array | None  # (T, N), True where a clip has a frame


class WordSaved(NamedTuple):
    """What one word's backward step needs."""

    query: Any
    attention: AdditiveSaved
    context: Any
    step: Any


class DecoderSaved(NamedTuple):
    """What `CaptionDecoder.backward` needs."""

    clip: Clip
    key: Any
    start: Any
    h_0: Array
    embedding: Any
    projection: Any
    words: list[WordSaved]
    head: Any
    share: Array  # (T, N, 1): each frame's share of its clip's mean


class AttentionWeights(Parametric):
    """The vector u of additive attention, (A,)."""

    def __init__(self, size: int, *, rng: np.random.Generator | int = 0, dtype: Any = np.float32) -> None:
        u = np.random.default_rng(rng).standard_normal(size) / np.sqrt(size)
        self.params, self.buffers = {"u": u.astype(dtype)}, {}


class CaptionDecoder(Container, Layer):
    """An LSTM that writes words and, before each, looks back at the frames.

    Args:
        vocabulary: V, number of words, those that begin and end a sentence included.
        channels: D, features of a frame.
        features: H of the LSTM. attention: A. embedding: E.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: embedding.w (V, E), cell.* of an LSTM, context.w (4H, D), query.w (A, H), key.w (A, D), key.b,
        attention.u (A,), start.w (H, D), start.b, head.w (V, H + D), head.b.
    """

    def __init__(
        self,
        vocabulary: int,
        channels: int,
        features: int = 64,
        *,
        attention: int = 32,
        embedding: int = 16,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        rng = np.random.default_rng(rng)
        own: dict[str, Any] = {"rng": rng, "dtype": dtype}
        self.parts = {
            "embedding": Embedding(vocabulary, embedding, **own),
            "cell": LSTMCell(embedding, features, **own),
            "context": Dense(channels, 4 * features, bias=False, **own),
            "query": Dense(features, attention, bias=False, **own),
            "key": Dense(channels, attention, **own),
            "attention": AttentionWeights(attention, **own),
            "start": Dense(channels, features, **own),
            "head": Dense(features + channels, vocabulary, **own),
        }

    def look(self, values: Array, lengths: Array | None = None) -> tuple[Clip, LSTMState, tuple[Any, ...]]:
        """The keys of all frames, the state before the first word, and what backward needs of both.

        Args:
            values: v, (T, N, D).
            lengths: (N,) frames of each clip, 1 to T; what lies beyond is not read.
        Raises:
            ValueError: values are no sequence of at least one frame, or lengths do not fit them.
        """
        xp = array_module(values)
        lengths = check_sequence(values, lengths)
        T, mask = len(values), alive_steps(len(values), lengths)
        values = without_padding(values, lengths)
        if mask is None:
            share = xp.full((T, values.shape[1], 1), 1 / T, dtype=values.real.dtype)
        else:
            share = (mask / mask.sum(axis=0)).astype(values.real.dtype)[..., None]
        keys, key = self.parts["key"].forward(values)
        h, start = self.parts["start"].forward((share * values).sum(axis=0))
        h = xp.tanh(h)
        return Clip(keys, values, mask), LSTMState(h, xp.zeros_like(h)), (key, start, share)

    def word(self, z: Array, state: LSTMState, clip: Clip) -> tuple[LSTMState, Array, WordSaved]:
        """One word: the new state, the context it read, and what backward needs; z is the word before's part."""
        parts = self.parts
        query, query_saved = parts["query"].forward(state.h)
        u = parts["attention"].params["u"]
        context, attention = additive_attention_forward(query, clip.keys, u, clip.values, mask=clip.mask)
        seen, context_saved = parts["context"].forward(context)
        state, step = parts["cell"].step(z + seen, state)
        return state, context, WordSaved(query_saved, attention, context_saved, step)

    def forward(  # type: ignore[override]
        self, x: Array, words: Array, *, lengths: Array | None = None, train: bool = False, rng: Rng = None
    ) -> tuple[Array, DecoderSaved]:
        """Logits of every next word, when the words before are known.

        Args:
            x: v, features of the frames (T, N, D).
            words: (L, N) ids, the first is the one that begins a sentence.
            lengths: (N,) frames of each clip.
        Returns:
            logits (L, N, V): at l those of the word after words[l]; and what backward needs.
        """
        xp = array_module(x)
        clip, state, (key, start, share) = self.look(x, lengths)
        h_0, steps, outs = state.h, [], []
        vectors, embedding = self.parts["embedding"].forward(words)
        zs, projection = self.parts["cell"].project(vectors)
        for z in zs:
            state, context, saved = self.word(z, state, clip)
            outs.append(xp.concatenate([state.h, context], axis=1))
            steps.append(saved)
        logits, head = self.parts["head"].forward(xp.stack(outs))
        return logits, DecoderSaved(clip, key, start, h_0, embedding, projection, steps, head, share)

    def backward(self, dy: Array, saved: DecoderSaved) -> tuple[Array, Grads]:
        """dx (T, N, D) and grads from dlogits (L, N, V): back through the words, last one first."""
        parts, xp = self.parts, array_module(dy)
        cell = parts["cell"]
        H = cell.features
        grads: Grads = {}

        def back(name: str, d: Array, kept: Any) -> Array:
            dx, found = parts[name].backward(d, kept)
            for key, g in prefixed(name, found).items():
                grads[key] = grads[key] + g if key in grads else g
            return dx

        douts = back("head", dy, saved.head)  # (L, N, H + D)
        dh, dc = xp.zeros_like(douts[0, :, :H]), xp.zeros_like(douts[0, :, :H])
        dkeys, dvalues = xp.zeros_like(saved.clip.keys), xp.zeros_like(saved.clip.values)
        dzs: list[Array] = []
        of_cell: Grads = {}
        for dout, word in zip(douts[::-1], saved.words[::-1], strict=True):
            dz, (dh, dc), _ = cell.step_backward(LSTMState(dh + dout[:, :H], dc), word.step)
            dcontext = dout[:, H:] + back("context", dz, word.context)
            dquery, dk, du, dv = additive_attention_backward(dcontext, word.attention)
            dkeys, dvalues = dkeys + dk, dvalues + dv
            grads["attention.u"] = grads.get("attention.u", 0) + du
            dh = dh + back("query", dquery, word.query)
            dzs.insert(0, dz)
        cell.state_backward(dzs, [word.step for word in saved.words], of_cell)
        dvectors = cell.project_backward(dzs, saved.projection, of_cell)
        back("embedding", dvectors, saved.embedding)
        dmean = back("start", dh * (1 - saved.h_0 * saved.h_0), saved.start)
        dx = dvalues + back("key", dkeys, saved.key) + saved.share * dmean
        grads |= prefixed("cell", of_cell)
        return dx, {name: grads[name] for name in self.params}

    def next(self, words: Array, state: LSTMState, clip: Clip) -> tuple[Array, LSTMState, Array]:
        """One step of writing: log-probabilities (N, V) after words (N,), the state, the weights (T, N)."""
        vectors = self.parts["embedding"].forward(words)[0]
        state, context, saved = self.word(self.parts["cell"].project(vectors[None])[0][0], state, clip)
        out = array_module(context).concatenate([state.h, context], axis=1)
        log_p = log_softmax_forward(self.parts["head"].forward(out)[0])[0]
        return log_p, state, saved.attention.a


class Captioner(Container, Layer):
    """Frames to words: a layer over frames, a recurrent layer over time, and a `CaptionDecoder`.

    Args:
        frames: (T, N, C, *S) -> (T, N, F), such as a `TimeDistributed` CNN.
        reader: (T, N, F) -> (T, N, D), a `Recurrent` or `Bidirectional` layer, which is told the lengths.
        decoder: the decoder, of D channels.
    """

    def __init__(self, frames: Layer, reader: Layer, decoder: CaptionDecoder) -> None:
        self.parts = {"frames": frames, "reader": reader, "decoder": decoder}

    def read(self, x: Array, *, lengths: Any = None, train: bool = False, rng: Rng = None) -> Any:
        """v (T, N, D), which the decoder looks at; and what backward needs."""
        features, first = self.parts["frames"].forward(x, train=train, rng=rng)
        v, second = self.parts["reader"].forward(features, train=train, rng=rng, lengths=lengths)
        return v, (first, second)

    def forward(  # type: ignore[override]
        self, x: Array, words: Array, *, lengths: Any = None, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """Logits (L, N, V) from clips x (T, N, C, *S) and words (L, N), as `CaptionDecoder.forward`."""
        v, read = self.read(x, lengths=lengths, train=train, rng=rng)
        logits, written = self.parts["decoder"].forward(v, words, lengths=lengths)
        return logits, (*read, written)

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx and grads from dlogits."""
        d, grads = dy, Grads()
        for (name, part), kept in zip(reversed(self.parts.items()), reversed(saved), strict=True):
            d, found = part.backward(d, kept)
            grads |= prefixed(name, found)
        return d, {name: grads[name] for name in self.params}


def caption_loss_forward(
    model: Any, data: tuple[Array, Array, Array, Array], *, train: bool = False, rng: Rng = None
) -> tuple[Array, Any]:
    """Temporal softmax loss: mean cross-entropy of every next word, over the words that a sentence has.

    Args:
        model: a `Captioner`, or a `CaptionDecoder` where x are features.
        data: (x, frame lengths (N,), words (L + 1, N), word counts (N,)): the first `count` words of a
            column, the one that begins and the one that ends included, are a sentence; the others do not count.
    Returns:
        The loss in nats a word, a scalar, and what `caption_loss_backward` needs.
    """
    x, lengths, words, counts = data
    xp = array_module(x)
    logits, saved = model.forward(x, words[:-1], lengths=lengths, train=train, rng=rng)
    L, N, V = logits.shape
    mask = (xp.arange(1, L + 1)[:, None] < counts).reshape(-1)  # target l is word l + 1
    loss, kept = cross_entropy_forward(logits.reshape(L * N, V), words[1:].reshape(-1), mask=mask)
    return loss, (saved, kept, logits.shape)


def caption_loss_backward(model: Any, saved: Any) -> Grads:
    """Gradients of the loss with respect to the model's parameters, by name."""
    kept, loss, shape = saved
    grads: Grads = model.backward(cross_entropy_backward(1.0, loss).reshape(shape), kept)[1]
    return grads
