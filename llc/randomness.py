"""Common random numbers: every number drawn is a function of (seed, stream, chain, step) and of nothing else.

A counter-based generator (Philox, Salmon et al. 2011) makes this free: there is no generator state to carry, save or
resume, every checkpoint of a series sees the same draws, and an added chain changes no other. Numbers are made on the
CPU whatever the device, so that CPU and GPU runs see the same ones. A generator makes a block of steps at a time, since
starting one costs more than the numbers of a small model.
"""

import hashlib
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

BLOCK_NUMBERS = 2**16
"""Numbers of one block: the steps that share a generator are as many as fit, at least one."""


class Stream(IntEnum):
    """What the numbers are for; streams never share numbers."""

    NOISE = 1
    MINIBATCH = 2
    PROBE = 3
    SECOND_MINIBATCH = 4
    UNIFORM = 5
    SIGN = 6
    START = 7


def seed_of(what: str, seed: int) -> int:
    """A seed of its own for something that goes with a run, and is to share no numbers with it."""
    return int.from_bytes(hashlib.sha256(f"{what} of {seed}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, stream: Stream, chain: int, block: int) -> Generator:
    """The generator of one (seed, stream, chain, block). The counter's low words leave room for 2¹²⁸ draws of each."""
    return Generator(Philox(key=np.array([seed, chain], np.uint64), counter=np.array([0, 0, stream, block], np.uint64)))


class CommonDraws:
    """The numbers of the chains, step by step. To be asked for steps in order; any step may be the first."""

    def __init__(self, seed: int, num_chains: int, num_parameters: int, num_samples: int, batch_size: int) -> None:
        def blocks(stream: Stream, width: int, draw: Draw) -> _Blocks:
            return _Blocks(seed, stream, num_chains, width, draw)

        def normals(generator: Generator, shape: tuple[int, int]) -> NDArray:
            return generator.standard_normal(shape, dtype=np.float32)

        def samples(generator: Generator, shape: tuple[int, int]) -> NDArray:
            return generator.integers(0, num_samples, shape)

        def signs(generator: Generator, shape: tuple[int, int]) -> NDArray:
            return generator.integers(0, 2, shape, dtype=np.int8) * np.float32(2) - np.float32(1)

        self._start = blocks(Stream.START, num_parameters, normals)
        self._noise = blocks(Stream.NOISE, num_parameters, normals)
        self._signs = blocks(Stream.SIGN, num_parameters, signs)
        self._minibatches = blocks(Stream.MINIBATCH, batch_size, samples)
        self._second = blocks(Stream.SECOND_MINIBATCH, batch_size, samples)
        self._uniforms = blocks(Stream.UNIFORM, 1, lambda generator, shape: generator.random(shape, dtype=np.float32))

    def start(self) -> NDArray[np.float32]:
        """(chains, d) standard normals for the state before the first step."""
        return self._start.at(0)

    def noise(self, step: int) -> NDArray[np.float32]:
        """(chains, d) standard normals."""
        return self._noise.at(step)

    def signs(self, step: int) -> NDArray[np.float32]:
        """(chains, d) of −1 and 1."""
        return self._signs.at(step)

    def minibatches(self, step: int) -> NDArray[np.int64]:
        """(chains, batch) indices of samples, drawn with replacement."""
        return self._minibatches.at(step)

    def second_minibatches(self, step: int) -> NDArray[np.int64]:
        """As `minibatches`, and independent of them."""
        return self._second.at(step)

    def uniforms(self, step: int) -> NDArray[np.float32]:
        """(chains, 1) in [0, 1)."""
        return self._uniforms.at(step)


Draw = Callable[[Generator, tuple[int, int]], NDArray]


class _Blocks:
    """(chains, width) arrays, one a step, made a block of steps at a time."""

    def __init__(
        self,
        seed: int,
        stream: Stream,
        num_chains: int,
        width: int,
        draw: "Draw",
    ) -> None:
        self._seed, self._stream, self._num_chains, self._width, self._draw = seed, stream, num_chains, width, draw
        self._steps = max(1, BLOCK_NUMBERS // width)
        self._block, self._numbers = -1, np.empty(0)

    def at(self, step: int) -> NDArray:
        block, offset = divmod(step, self._steps)
        if block != self._block:
            shape = (self._steps, self._width)
            chains = range(self._num_chains)
            numbers = [self._draw(generator(self._seed, self._stream, chain, block), shape) for chain in chains]
            self._block, self._numbers = block, np.stack(numbers)
        return self._numbers[:, offset]
