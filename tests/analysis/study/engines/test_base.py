"""The tasks still to be started."""

from __future__ import annotations

from tests.analysis.study.stubs import tasks
from tokenred.analysis.study.cell import DONE, Outcome
from tokenred.analysis.study.engines.base import Tasks, usable_cores


def keys(todo: Tasks, most: int = 1) -> list[str]:
    return [task.key for task in todo.take(most)]


def test_in_order_and_some_at_a_time() -> None:
    todo = Tasks(tasks(5), retries=0)
    assert keys(todo) == ["key0"]
    two = todo.take(2)
    todo.put_back(two)
    assert keys(todo, 10) == ["key1", "key2", "key3", "key4"]
    assert keys(todo) == []


def test_tasks_are_taken_as_they_are_needed() -> None:
    seen = []
    todo = Tasks((seen.append(task.key) or task for task in tasks(100)), retries=0)
    todo.take(3)
    assert len(seen) == 3


def test_a_task_over_which_workers_die_is_given_up() -> None:
    todo = Tasks(tasks(1), retries=2)
    for _ in range(2):
        assert todo.died(todo.take(), "signal 9") == []
    (outcome,) = todo.died(todo.take(), "signal 9, SIGKILL")
    assert (outcome.status, outcome.attempts) == ("failed", 3)
    assert "3 workers died over this cell (signal 9, SIGKILL)" in outcome.error
    assert keys(todo) == []


def test_of_several_none_is_given_up_but_each_is_then_tried_alone() -> None:
    todo = Tasks(tasks(4), retries=0)
    assert todo.died(todo.take(3), "gone") == []
    assert [keys(todo, 10) for _ in range(4)] == [["key0"], ["key1"], ["key2"], ["key3"]]


def test_suspects_do_not_hide_behind_others() -> None:
    todo = Tasks(tasks(2), retries=1)
    one, two = todo.take(2)
    todo.put_back([one])
    todo.died([two], "gone")
    assert [keys(todo, 10) for _ in range(2)] == [["key0"], ["key1"]]


def test_attempts_are_counted() -> None:
    todo = Tasks(tasks(2), retries=3)
    first, second = todo.take(2)
    todo.died([first], "gone")
    todo.died(todo.take(), "gone")
    found = todo.finished([Outcome(t.key, DONE) for t in (first, second)])
    assert [outcome.attempts for outcome in found] == [3, 1]


def test_cores() -> None:
    assert usable_cores() >= 1
