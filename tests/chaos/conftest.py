"""A stack to break whose leases end soon, and a small series on it, shared by the tests of this folder."""

from collections.abc import Iterator

import pytest

import lambdahat
from lambdahat.objects import Series
from lambdahat.stack import Stack
from tests.chaos.world import World
from tests.chaos.world import world as a_world

CHECKPOINTS = 8


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    with a_world() as world:
        yield world


@pytest.fixture(scope="package")
def stack(world: World) -> Stack:
    return world.stack


@pytest.fixture(scope="package")
def client(world: World) -> lambdahat.Client:
    return world.client


@pytest.fixture(scope="package")
def series(world: World) -> Series:
    return world.series(CHECKPOINTS)
