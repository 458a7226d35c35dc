"""What keeps the stack from running, in words a person can act on."""


class StackError(RuntimeError):
    """The stack can't start or go on.

    detail: what is wrong, with the name of the thing; hint: what to do about it.
    """

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail}\n{self.hint}" if self.hint else self.detail
