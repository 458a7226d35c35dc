"""`python -m lambdahat` is `lambdahat`."""

from lambdahat.cli import app

app(prog_name="lambdahat")
