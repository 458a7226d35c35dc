"""`python -m lambdahat`: the command line."""

from lambdahat.cli import app

app(prog_name="lambdahat")
