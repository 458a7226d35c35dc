"""What a process holds for good, set apart from what a request makes and leaves behind."""

import gc
from functools import cache
from importlib import import_module


def settle() -> None:
    """What is there by now stays: the garbage collector need not look through it (a tenth of a second) each time."""
    gc.collect()
    gc.freeze()


@cache
def load_drawing() -> None:
    """Import what pictures are drawn with: a second, which only a picture is worth."""
    for module in ("lambdahat.plot", "lambdahat.plot_alignment"):
        import_module(module)
    settle()
