"""Models that run in several processes: two real ones, over gloo on the loopback, each with a watch of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

WORKER = Path(__file__).parent / "workers" / "ranks.py"
LAYERS = ["blocks.0.act", "blocks.1.act", "blocks.2.act"]
FORWARDS = 8
HITS = [3, 2]
"""Faulty passes that each rank runs."""

Answers = list[dict[str, Any]]

pytestmark = pytest.mark.skipif(not (distributed.is_available() and distributed.is_gloo_available()), reason="needs gloo")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Run both ranks once; return what each saw, by scenario."""
    directory = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(WORKER)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(directory)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(2)
    ]
    try:
        texts = [rank.communicate(timeout=120)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [0, 0] == [rank.returncode for rank in ranks], "\n".join(texts)
    return [json.loads((directory / f"answers{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("scenario", ["ddp", "fsdp", "fsdp_later"])
def test_each_rank_counts_its_own_passes_and_changes_no_bit(scenario: str, rank: int, answers: Answers) -> None:
    """Replicated or sharded, before the watch or after, losses and parameters are the same bits, and each rank's counts its own."""
    seen = answers[rank][scenario]
    assert seen["same"]
    assert (FORWARDS, HITS[rank], {}, []) == (seen["forwards"], seen["hits"], seen["errors"], seen["disabled"])
    assert {layer: [HITS[rank], HITS[rank] * (layer == LAYERS[0])] for layer in LAYERS} == seen["by_layer"]
    assert dict.fromkeys(LAYERS, 16 * HITS[rank]) == seen["elements"]


@pytest.mark.parametrize("scenario", ["ddp", "fsdp", "fsdp_later"])
def test_what_all_ranks_saw_is_the_sum_and_every_rank_knows_it(scenario: str, answers: Answers) -> None:
    """Gathered, counters are those of both ranks together, the same on each; and each rank's metrics bear its number."""
    for rank, seen in enumerate(each[scenario] for each in answers):
        assert str(rank) == seen["rank"]
        assert [2 * FORWARDS, sum(HITS), 2 * FORWARDS * 4] == seen["together"]
        assert sum(HITS) == seen["firsts together"][LAYERS[0]] == sum(seen["firsts together"].values())


@pytest.mark.parametrize("scenario", ["ddp", "fsdp"])
def test_sites_are_called_what_they_are_without_wrappers_so_that_baselines_fit(scenario: str, answers: Answers) -> None:
    """Under DistributedDataParallel and fully_shard all sites are observed under their eager names, and an eager baseline arms."""
    for seen in (each[scenario] for each in answers):
        assert (LAYERS, ["observed"] * 3, True) == (seen["sites"], seen["states"], seen["armed"])


def test_nothing_waits_for_the_other_rank(answers: Answers) -> None:
    """With a watch on one rank alone, and the other leaving a layer out, training ends, and the watch's counts are exact."""
    seen = answers[0]["uneven"]
    assert (FORWARDS, HITS[0], {}) == (seen["forwards"], seen["hits"], seen["errors"])


def test_split_layers_are_watched_on_each_rank(answers: Answers) -> None:
    """Under tensor parallelism each rank guards its own channels: the rank that holds the fault names its layer, the other the next."""
    assert [True, True] == [each["tensor_parallel"]["same"] for each in answers]
    assert {"blocks.2.act": [1, 1]} == answers[0]["tensor_parallel"]["by_layer"]
    assert {"blocks.1.act": [1, 1], "blocks.2.act": [1, 0]} == answers[1]["tensor_parallel"]["by_layer"]
    assert {"blocks.1.act": 4, "blocks.2.act": 32} == answers[1]["tensor_parallel"]["elements"]
    assert [{}, {}] == [each["tensor_parallel"]["errors"] for each in answers]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_distributed_tensor_goes_through_and_says_why_it_is_not_watched(rank: int, answers: Answers) -> None:
    """A GELU that is given a distributed tensor computes the same bits, is blind with the reason, and is healed by a plain tensor."""
    seen = answers[rank]["dtensor"]
    assert (True, ["blind"], {}, 1) == (seen["same"], seen["states"], seen["errors"], seen["hits after"])
    assert "DTensor" in seen["reasons"][0]
