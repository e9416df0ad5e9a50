"""Sound against sound on synthetic events: ``python -m benchmarks.sound_trials [--pairs N] [--foreign N]``.

Each pair hears one event in two rooms, with noise as loud as the event; offsets to ±5 s, drifts to ±100 ppm.
Foreign pairs hear two events. Nothing is written; the figures in ``docs/sync.md`` are this output.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from align.schemas.time import NS, TimeSpan
from align.transforms.align.margins import AUDIO_MARGIN_NS
from align.transforms.sync.clocks import shared_clock
from align.transforms.sync.gcc_phat import Sound
from align.transforms.sync.sound import Listener, measure_sound
from align.transforms.sync.sound_match import hearing as in_memory
from align.transforms.sync.sound_search import Hear
from align.transforms.sync.verdict import SyncOptions
from align.transforms.synth.event import event_clock, scene
from align.transforms.synth.options import SynthOptions

LENGTHS_S = (20.0, 60.0, 600.0)


def event(seed: int, seconds: float) -> SynthOptions:
    """Two recordings of one event; the first one's clock is the event's."""
    rng = np.random.default_rng(seed)
    return SynthOptions(
        count=2,
        duration_s=seconds,
        audio_rate=16_000,
        event_offsets_s=(0.0, float(rng.uniform(-4.5, 4.5))),
        event_drifts_ppm=(0.0, float(rng.uniform(-100, 100))),
        event_snr_db=0.0,
        seed=seed,
    )


def hearing(options: SynthOptions, index: int) -> Hear:
    """What a recording of the event hears, made when it is asked for."""
    sound = scene(options, index)

    def hear(spans: Sequence[TimeSpan], rate: int) -> Iterator[Sound]:
        for span in spans:
            around = span.widened(AUDIO_MARGIN_NS)
            ticks = np.arange(around.length_ns * options.audio_rate // NS)
            times = around.start_ns + (ticks * (NS / options.audio_rate)).astype(np.int64)
            made = Sound(options.audio_rate, around.start_ns / NS, sound.at(times))
            yield from in_memory(made)([span], rate)

    return hear


def concurrent(seconds: float, pairs: int) -> None:
    """Print how far off the measured clocks are."""
    errors, drifts, within, spent = [], [], 0, 0.0
    verdicts: Counter[str] = Counter()
    span = TimeSpan(0, round(seconds * NS))
    for seed in range(pairs):
        options = event(seed, seconds)
        own, reference = (Listener(str(i), span, (), hearing(options, i)) for i in (1, 0))
        began = time.process_time()
        found = measure_sound(own, reference, 0, SyncOptions())
        spent += time.process_time() - began
        verdicts[found.rows[0].status] += 1
        clock = event_clock(options, 1)
        if not found.rows[0].is_known or clock is None:
            continue
        shared = shared_clock(found.rows, "1")
        off = [abs(shared.clock.at(t) - clock.at(t)) for t in (0, span.center_ns, span.end_ns)]
        errors.append(max(off) / 1e6)
        drifts.append(abs(shared.clock.pieces[0].drift_ppm - clock.pieces[0].drift_ppm))
        within += max(off) <= 3 * shared.sigma_ns
    told = f"{np.median(errors):.4f} ms median, {max(errors):.4f} max; drift {max(drifts):.3f} ppm max"
    print(f"{seconds:g} s: {dict(verdicts)}; {told}; within 3σ {within}; {spent / pairs:.1f} CPU s a pair")


def foreign(seconds: float, pairs: int) -> None:
    """Print what becomes of recordings of different events."""
    verdicts: Counter[str] = Counter()
    span = TimeSpan(0, round(seconds * NS))
    for seed in range(pairs):
        one = replace(event(seed, seconds), seed=1_000_000 + 2 * seed)
        other = replace(one, seed=one.seed + 1)
        own, reference = (Listener(str(o.seed), span, (), hearing(o, 0)) for o in (one, other))
        verdicts[measure_sound(own, reference, 0, SyncOptions()).rows[0].status] += 1
    print(f"{seconds:g} s, foreign: {dict(verdicts)}", flush=True)


def main() -> None:
    """Run the trials."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=20, help="of each length; a tenth of the longest")
    options.add_argument("--foreign", type=int, default=200)
    chosen = options.parse_args()
    for seconds in LENGTHS_S:
        concurrent(seconds, max(1, chosen.pairs // (10 if seconds > 100 else 1)))
    for seconds in (17.0, 30.0):
        foreign(seconds, chosen.foreign // 2)


if __name__ == "__main__":
    main()
