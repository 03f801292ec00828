"""Kills and freezes one part after the other, and hurts the calls between them: at random, from a seed."""

import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.chaos.parts import PARTS, Platform
from tests.proxy import DROP, LOSE_ANSWER, PASS, Fault

_HURT_SHARE = 0.15
_LONGEST_FREEZE_SECONDS = 6  # longer than the uploader waits for Argilla, and than its lease
_LONGEST_REST_SECONDS = 3


@dataclass
class Monkey:
    """Causes failures in a platform; `done` lists them with their times."""

    platform: Platform
    seed: int
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Of their own, so that the calls, whose number is chance, do not change the strikes.
        self._strikes, self._faults = random.Random(self.seed), random.Random(self.seed)  # noqa: S311

    def strike_all(self) -> None:
        """Strike every part once, in random order; the network is bad all the while."""
        self.platform.to_argilla.rule = self.platform.to_ingestion.rule = self._hurt
        try:
            for part in self._strikes.sample(PARTS, len(PARTS)):
                self._strike(part)
                time.sleep(self._strikes.uniform(0, _LONGEST_REST_SECONDS))
        finally:
            self.platform.to_argilla.rule = self.platform.to_ingestion.rule = lambda _head: PASS

    def _strike(self, part: str) -> None:
        if self._strikes.random() < 0.5:
            self._note(f"kill {part}")
            self.platform.kill(part)
        else:
            self._freeze(part, self._strikes.uniform(1, _LONGEST_FREEZE_SECONDS))

    def _freeze(self, part: str, seconds: float) -> None:
        self._note(f"freeze {part} for {seconds:.1f} s")
        frozen = self.platform.processes(part)
        try:
            _signal(frozen, signal.SIGSTOP)
            time.sleep(seconds)
        finally:
            _signal(frozen, signal.SIGCONT)

    def _hurt(self, head: bytes) -> Fault:
        """Decide about a call; from the proxies' threads."""
        if self._faults.random() > _HURT_SHARE:
            return PASS
        fault = self._faults.choice(
            [
                DROP,
                LOSE_ANSWER,
                Fault(request_bytes=self._faults.randrange(1, 5000)),
                Fault(answer_bytes=self._faults.randrange(1, 1000)),
                Fault(delay_seconds=self._faults.uniform(0, 8)),
            ]
        )
        self._note(f"{head.partition(b' HTTP/')[0].decode(errors='replace')[:80]}: {fault}")
        return fault

    def _note(self, what: str) -> None:
        self.done.append(f"{time.strftime('%H:%M:%S')} {what}")


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended, or the stack is starting it again
            process.send_signal(number)
