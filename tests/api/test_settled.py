"""What a process of the API holds for good is nothing that the garbage collector looks through."""

import subprocess
import sys

PROGRAM = """
import gc, sys
import api.figures
from api.settled import load_drawing, settle
settle()
assert not any(name.startswith("matplotlib") for name in sys.modules), "imported before a picture is asked for"
before = gc.get_freeze_count()
load_drawing()
assert "lambdahat.plot" in sys.modules and "lambdahat.plot_alignment" in sys.modules
print(gc.get_freeze_count() - before, len(gc.get_objects()))
"""


def test_what_pictures_are_drawn_with_is_set_apart() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    frozen, looked_through = map(int, done.stdout.split())
    assert frozen > 20_000
    assert looked_through < 1_000
