"""When to keep a checkpoint: log-spaced where a network changes fast, evenly spaced afterwards."""


def log_linear_steps(total: int, num_log: int = 100, num_linear: int = 0) -> list[int]:
    """Steps of a log-plus-linear schedule over training steps 0 … total, sorted, without repetitions.

    num_log: distinct steps spaced as evenly in log(step) as whole numbers allow, from 1 to `total`;
    num_linear: steps spaced evenly, so that no gap is longer than total / num_linear. Both reach over the whole run
    and are united with 0, the initialisation; the last is always `total`.
    """
    if total < 0 or num_log < 0 or num_linear < 0:
        raise ValueError(f"no number of steps is negative: {total=}, {num_log=}, {num_linear=}")
    linear = [round(total * i / num_linear) for i in range(1, num_linear + 1)]
    return sorted({0, total, *_log_spaced(total, num_log), *linear})


def _log_spaced(total: int, count: int) -> list[int]:
    """`count` distinct whole numbers from 1 to `total` (all of them, if there are no more).

    Rounded powers would repeat the small ones; so each step takes an equal share, in logarithms, of what is left.
    """
    if total <= count:
        return list(range(1, total + 1))
    steps = [1] if count else []
    while len(steps) < count:
        last, left = steps[-1], count - len(steps)
        steps.append(max(last + 1, round(last * (total / last) ** (1 / left))))
    return steps
