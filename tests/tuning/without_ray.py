"""A study in this process, trial after trial: what Ray does with it on one worker."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from samtune.study.trial_run import Progress, run_trial
from samtune.tuning.search import Search


def epochs_of(search: Search) -> Iterator[Progress]:
    """Runs what a search hands out; gives each epoch once the search knows it and goes on."""
    while key := search.next_trial():
        trial = search.folder.trial(key)
        for p in run_trial(trial, search.session, device=torch.device("cpu")):
            if p.outcome:
                search.end(key, p.outcome, write=False)
            elif search.on_epoch(key, p.epoch, p.metrics, p.duration_s, p.replayed):
                yield p
            else:
                break
