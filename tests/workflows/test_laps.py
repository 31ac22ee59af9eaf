from __future__ import annotations

from autotune.workflows.laps import Laps


def test_laps_of_one_name_add_up_and_the_current_one_counts() -> None:
    now = 0.0
    laps = Laps(lambda: now)
    assert laps.seconds == {}
    for name, seconds in (("full run", 3.0), ("search", 10.0), ("full run", 2.0)):
        laps.begin(name)
        now += seconds
    assert laps.seconds == {"full run": 5.0, "search": 10.0}
    now += 1
    assert laps.seconds == {"full run": 6.0, "search": 10.0}
