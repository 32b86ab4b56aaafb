"""Bits back: a block of examples as one string of bits, -ELBO long (Townsend, Bird and Barber 2019)."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvae import posteriors
from kvae.compression.ans import PRECISION, Stack
from kvae.compression.exact import Networks, Rounding, normals_of
from kvae.compression.levels import Levels
from kvae.compression.symbols import Buckets, Symbols, likelihood_symbols
from kvae.evaluation import scoring

LANES = 512  # chains of a block, at most: each costs a byte or two
_VALUES_OF_A_LANE, _EXAMPLES_OF_A_LANE = 25_000, 128  # at least one of the two


def check_compresses(model: Any) -> None:
    """Raise TypeError or ValueError if the model's densities can't be coded."""
    scoring.check_is_model(model)
    family, likelihood = getattr(model, "posterior_family", None), model.likelihood
    if not isinstance(family, posteriors.DiagonalNormal) or hasattr(model, "label_dim"):
        found = type(model).__name__ if family is None or hasattr(model, "label_dim") else type(family).__name__
        raise TypeError(f"model is of {found}; compression expects a kvae.VAE with a kvae.posteriors.DiagonalNormal.")
    if model.missing:
        raise TypeError("The model takes missing values, and compression stores whole examples: use one without.")
    if not likelihood.discrete:
        raise TypeError(
            f"The likelihood is {type(likelihood).__name__}, a density; compression needs probabilities of whole "
            "numbers, such as kvae.BernoulliLikelihood or kvae.DiscretizedLogisticLikelihood gives."
        )
    model.check_built()
    Levels(likelihood, "float32")
    if normals_of(model.prior_distribution()) is None:
        raise TypeError(
            f"The prior is {type(model.prior).__name__}; compression expects a diagonal normal or a mixture of those, "
            "such as kvae.StandardNormal() or kvae.MixtureOfGaussians()."
        )


class Block(NamedTuple):
    """A block of compressed examples, arrays but for `levels`, the number of symbols that could occur."""

    levels: int
    lanes: NDArray  # examples of each step, uint16
    heads: NDArray  # uint64, of the stack's lanes
    words: NDArray  # uint32, of the stack, without those that everybody knows
    known: int  # of the first words, how many are left
    notes: NDArray  # int64 (m, 3), of the rounding


@dataclasses.dataclass(frozen=True)
class Coder:
    """Compresses and decompresses blocks of x with a model.

    To store an example, z is taken off the stack as if the bits there were of q(z|x). x is then stored with p(x|z), and
    z with p(z). The bits that z took come back with decompressing, so an example adds
    -log2 p(x|z) - log2 p(z) + log2 q(z|x) bits, in expectation -ELBO / log 2.

    Args:
        networks: `Networks` of the model.
        levels: `Levels` of x.
    """

    networks: Networks
    levels: Levels

    def compress(self, x: NDArray) -> Block:
        """Return the block of x (n, ...)."""
        symbols = self.levels.symbols(x)
        count = self.levels.count(symbols)
        known = self._first_words()
        chains = int(np.clip(max(symbols.size // _VALUES_OF_A_LANE, len(x) // _EXAMPLES_OF_A_LANE), 1, LANES))
        stack, rounding, lanes = Stack(known, lanes=chains), Rounding(), []
        prior = self.networks.prior(rounding)
        done = begun = 0
        while done < len(x):
            # At first a few examples at a time: z needs bits, and those of the known words are in the file again.
            rows = int(np.clip(stack.size // len(known), 1, min(len(stack.heads), len(x) - done)))
            step = slice(done, done + rows)
            stack.begin(begun, rows)
            q = self._posterior(x[step], prior, rounding, len(lanes))
            with stack.scrambled(len(lanes), rows, is_popping=True):
                buckets = self._pop(stack, q, self.networks.latent_dim, rows)
            p = self._likelihood(prior.z(buckets), rounding, len(lanes), count)
            self._push(stack, p, symbols[step].T)
            self._push(stack, prior, buckets)
            lanes.append(rows)
            begun, done = max(begun, rows), done + rows
        words = stack.words[stack.lowest :].copy()
        return Block(count, np.array(lanes, "uint16"), stack.heads, words, stack.lowest, rounding.notes)

    def decompress(self, block: Block) -> NDArray:
        """Return x (n, ...) of a block.

        Raises:
            ValueError: if the bits aren't of this model.
        """
        known = self._first_words()
        stack = Stack(np.concatenate([known[: block.known], block.words]), block.heads)
        rounding, parts = Rounding(block.notes), []
        prior = self.networks.prior(rounding)
        begun = np.maximum.accumulate([0, *block.lanes.tolist()])  # lanes before each step
        for step, rows in reversed(list(enumerate(block.lanes.tolist()))):
            buckets = self._pop(stack, prior, self.networks.latent_dim, rows)
            p = self._likelihood(prior.z(buckets), rounding, step, block.levels)
            symbols = self._pop(stack, p, self._dimensions, rows)
            parts.append(self.levels.examples(symbols.T))
            q = self._posterior(parts[-1], prior, rounding, step)
            with stack.scrambled(step, rows, is_popping=False):
                self._push(stack, q, buckets)
            stack.end(begun[step], rows)
        if not stack.holds(known):
            raise ValueError("bits are left over")
        return np.concatenate(parts[::-1])

    @property
    def _dimensions(self):
        shape = self.levels.event_shape
        return int(np.prod(shape[:-1] if self.levels.is_one_hot else shape))

    def _first_words(self):
        """Bits for the first z, the same for everyone: the latents of one example take no more."""
        count = self.networks.latent_dim * PRECISION // 32 + 3
        return np.random.RandomState(0).randint(0, 1 << 32, count, "uint32")  # a generator that never changes

    def _posterior(self, x, prior, rounding, step):
        return Buckets(*self.networks.posterior(x, rounding, 2 * step), prior)

    def _likelihood(self, z, rounding, step, levels):
        return likelihood_symbols(*self.networks.conditional(z, rounding, 2 * step + 1), levels)

    @staticmethod
    def _push(stack: Stack, p: Symbols, values: NDArray) -> None:
        """Store values (D, n), the last position first."""
        intervals = [p.interval(position, values[position], values) for position in range(len(values))]
        for start, frequency in reversed(intervals):
            stack.push(start, frequency)

    @staticmethod
    def _pop(stack: Stack, p: Symbols, dimensions: int, rows: int) -> NDArray:
        """Return the values (D, n) that `_push` stored."""
        values = np.empty((dimensions, rows), "int64")
        for position in range(dimensions):
            values[position] = p.find(position, stack.peek(rows), values)
            stack.pop(*p.interval(position, values[position], values))
        return values
