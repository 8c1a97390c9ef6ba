"""The generator goes before others only while it runs, only if it may, and never where it would take a core."""

from __future__ import annotations

import gc
import os
import sys

import pytest

from ramify.serving.bench.undisturbed import MOST_POLLED, undisturbed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling classes are Linux's")


def test_all_is_as_before_when_it_has_ended_or_failed() -> None:
    def fail() -> None:
        with undisturbed(polled=0.01):
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_generator_that_would_poll_much_of_the_time_stays_in_line() -> None:
    with undisturbed(polled=MOST_POLLED * 1.01):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_it_goes_first_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, policy, param: asked.append(policy))
    with undisturbed(polled=0.01):
        assert asked == [os.SCHED_RR]
    assert asked == [os.SCHED_RR, os.SCHED_OTHER]


def test_without_the_right_to_it_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, policy: int, param: os.sched_param) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with undisturbed(polled=0.01):
        assert not gc.isenabled()
