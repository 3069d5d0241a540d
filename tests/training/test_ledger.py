"""The ledger adds up to the wall clock, and work that is done again is lost work."""

import unittest.mock

from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.training import ledger
from semmim_jax.training.line_files import read_lines

OTHER = ('compilation', 'checkpoint', 'evaluation')
seconds = st.integers(1, 10**6).map(lambda microseconds: microseconds / 1e6)
# A start: how much of the steps done it lost, the time before it, and what each step took.
steps = st.lists(st.tuples(seconds, seconds, st.sampled_from(OTHER), seconds), max_size=6)
starts = st.lists(st.tuples(st.integers(0, 4), seconds, seconds, steps), min_size=1, max_size=4)


class Clock:
    now = began = 1e9  # of all processes, of this one

    def time(self):
        return self.now

    monotonic = time

    def process_time(self):
        return 2 * (self.now - self.began)  # two threads, always


@given(starts, st.booleans())
@settings(deadline=None, max_examples=60)
def test_phases_add_up_and_lost_work_is_what_was_redone(tmp_path_factory, starts, torn):
    path = tmp_path_factory.mktemp('ledger') / 'ledger.jsonl'
    clock, began = Clock(), Clock.now
    stand, step = {}, 0  # seconds of the steps that were not lost
    down = lost = 0.0
    with unittest.mock.patch.object(ledger, 'time', clock):
        for number, (back, pause, start_up, work) in enumerate(starts):
            step = max(0, step - back)
            lost += sum(stand.pop(s) for s in list(stand) if s > step)
            if number:
                clock.now += pause
                down += pause
            clock.began = clock.now
            process = ledger.Ledger()
            clock.now += start_up
            process.open(path, step=step)
            for wait, run, other, after in work:
                step += 1
                process.enter('data_wait', step)
                clock.now += wait
                process.enter('step')
                clock.now += run
                process.enter(other)
                clock.now += after
                stand[step] = wait + run
            process.close()
            if torn:  # by a kill
                with path.open('a') as file:
                    file.write('{"phase": "st')
    totals = ledger.totals(path)
    close = lambda a, b: abs(a - b) < 1e-4
    assert tuple(totals) == tuple(ledger.PHASES)
    assert close(sum(totals.values()), clock.now - began)
    assert close(totals['down'], down)
    assert close(totals['lost_work'], lost)
    assert close(totals['step'] + totals['data_wait'], sum(stand.values()))
    assert f'{clock.now - began:.1f}' in ledger.table(totals)
    phases = [line for line in read_lines(path) if 'phase' in line]
    assert all(close(line['processor'], 2 * line['seconds']) for line in phases)
