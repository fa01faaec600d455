"""`auto`: batches and evaluations that suit the number of rows."""

from types import ModuleType

from fieldctr.training.pace import LARGEST, SMALLEST, Pace

ROWS = sorted({round(10 ** (power / 7)) for power in range(64)})  # 1 to 1e9


def auto(planted: ModuleType, rows: int) -> Pace:
    return Pace.of(planted.trainer_config(batch_size="auto", evals_per_epoch="auto"), rows)


def test_more_rows_never_take_smaller_batches_or_fewer_evaluations(planted: ModuleType) -> None:
    paces = [auto(planted, rows) for rows in ROWS]
    assert paces == sorted(paces)
    assert {pace.batch_size for pace in paces} >= {SMALLEST, LARGEST}


def test_an_epoch_has_steps_enough_to_learn_in_and_evaluations_stand_apart(planted: ModuleType) -> None:
    for rows in ROWS:
        size, times = auto(planted, rows)
        assert size == SMALLEST or rows / size > 50
        assert times == 1 or rows / size / times >= 20


def test_numbers_stay_what_they_are(planted: ModuleType) -> None:
    given = planted.trainer_config(batch_size=77, evals_per_epoch=5)
    assert {Pace.of(given, rows) for rows in ROWS} == {Pace(77, 5)}
