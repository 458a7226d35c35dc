"""What importing the client costs a training script."""

import subprocess
import sys


def test_import_is_light() -> None:
    heavy = ("torch", "matplotlib", "typer", "sqlalchemy", "fastapi", "celery", "llc", "store", "api", "worker")
    code = f"import sys, lambdahat; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
