"""What is wrong with an input, in words a person can act on."""


class InputError(ValueError):
    """An input that can't be used.

    code: stable and machine-readable (`snake_case`); detail: what is wrong, with the name of the thing;
    hint: what to do about it.
    """

    def __init__(self, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail
