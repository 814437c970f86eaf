"""The forward pass of a BERT encoder in numpy, with mean pooling.

Texts are taken one by one: that is as fast as batches (measured: 28 to 30 against 27 passages a
second), needs neither padding nor a mask, and makes a text's vector the same whatever else is asked
for at the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo_rag.weights import Array

HEADS = 12
EPSILON = np.float32(1e-12)


@dataclass(frozen=True)
class Dense:
    """A linear layer: x @ weight.T + bias."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T
        y += self.bias
        return y


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[-1])
        x *= self.weight / np.sqrt(variance + EPSILON)
        x += self.bias
        return x


@dataclass(frozen=True)
class Layer:
    """The parts of one encoder layer."""

    query_key_value: Dense
    attention_output: Dense
    attention_norm: Norm
    intermediate: Dense
    output: Dense
    output_norm: Norm


class Bert:
    """A BERT encoder that returns one vector of length 1 for each text.

    Threads may share an instance: it does not change after it was made.

    Args:
        tensors: the weights by their names in the model's safetensors file.
    """

    def __init__(self, tensors: dict[str, Array]) -> None:
        self._tensors = tensors
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = tensors["embeddings.position_embeddings.weight"]
        # Single texts are all of the first segment, so its vector can be added once and for all.
        self._positions = self._positions + tensors["embeddings.token_type_embeddings.weight"][0]
        self._norm = self._norm_of("embeddings")
        count = sum(name.endswith("attention.self.query.weight") for name in tensors)
        self._layers = [self._layer(f"encoder.layer.{number}.") for number in range(count)]

    def encode(self, ids: Sequence[int]) -> Array:
        """Return the vector of the text that has these token ids, special tokens included."""
        x = self._norm(self._words[np.asarray(ids)] + self._positions[: len(ids)])
        for layer in self._layers:
            context = _attention(layer.query_key_value(x))
            x = layer.attention_norm(x + layer.attention_output(context))
            x = layer.output_norm(x + layer.output(gelu(layer.intermediate(x))))
        # The sum has the direction of the mean, and only the direction is kept.
        total: Array = x.sum(axis=0)
        total /= np.linalg.norm(total)
        return total

    def _dense(self, name: str) -> Dense:
        return Dense(self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm_of(self, name: str) -> Norm:
        prefix = f"{name}.LayerNorm"
        return Norm(self._tensors[f"{prefix}.weight"], self._tensors[f"{prefix}.bias"])

    def _layer(self, prefix: str) -> Layer:
        three = [self._dense(f"{prefix}attention.self.{x}") for x in ("query", "key", "value")]
        return Layer(
            query_key_value=Dense(
                np.concatenate([part.weight for part in three]),
                np.concatenate([part.bias for part in three]),
            ),
            attention_output=self._dense(f"{prefix}attention.output.dense"),
            attention_norm=self._norm_of(f"{prefix}attention.output"),
            intermediate=self._dense(f"{prefix}intermediate.dense"),
            output=self._dense(f"{prefix}output.dense"),
            output_norm=self._norm_of(f"{prefix}output"),
        )


def gelu(x: Array) -> Array:
    """Return x * (1 + erf(x / sqrt(2))) / 2, the exact form of GELU.

    erf is formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions, whose
    error is below 1.5e-7, which is about the precision of float32.
    """
    a1, a2, a3, a4, a5 = 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429
    result = np.empty_like(x)
    # A few rows at a time, so that the intermediate results stay in the processor's cache.
    for start in range(0, len(x), 16):
        rows = x[start : start + 16]
        z = np.abs(rows) * np.float32(0.5**0.5)
        t = 1 / (1 + np.float32(0.3275911) * z)
        tail = t * (a1 + t * (a2 + t * (a3 + t * (a4 + t * a5)))) * np.exp(-z * z)
        result[start : start + 16] = rows * np.float32(0.5) * (1 + np.copysign(1 - tail, rows))
    return result


def _attention(projected: Array) -> Array:
    """Return each token's mix of the values of all tokens.

    Args:
        projected: for each token its query, key and value side by side.
    """
    tokens, width = len(projected), projected.shape[1] // 3
    size = width // HEADS
    query, key, value = projected.reshape(tokens, 3, HEADS, size).transpose(1, 2, 0, 3)
    scores = query @ key.swapaxes(1, 2)
    scores *= np.float32(size**-0.5)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    context: Array = (scores @ value).swapaxes(0, 1)
    return context.reshape(tokens, width)
