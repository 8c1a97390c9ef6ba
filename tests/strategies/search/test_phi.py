"""Phi-decoding: pruning in width and depth, the joint choice, and the laws."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from ramify.backends.base import Node
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, RequestError
from ramify.randomness import BranchKey
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.kernel.trace import Grown
from ramify.strategies.resampling import softmax
from ramify.strategies.search.phi import Phi, own_logprob, own_text
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, chi_square, run_many
from tests.strategies.search.trees import TOKEN, depth_of, endless, levels, search

WARM = SMALL.law(temperature=0.8)
RUNS = 200


@pytest.mark.parametrize(
    "spec", ["phi:n=2,m=2,foresight=2", "phi:n=3,m=2,until=1,min_steps=1", "phi:n=2,m=3,until=1,by=answer,max_tokens=3"]
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


def texts(*parts):
    """Finished nodes, one a text, that their own extension drew."""
    root = Node(BranchKey.root(0, "phi"))
    return [Node(root.key.child(i), root, (1,), part, finish_reason="stop") for i, part in enumerate(parts)]


def marks(seed):
    """A context whose uniforms are a generator's, and which reads no answers."""
    generator = np.random.default_rng(seed)
    return SimpleNamespace(uniforms=lambda *path, n: generator.random(n), answer=lambda node: node.text or None)


def test_a_step_is_drawn_by_its_advantage_and_by_the_share_of_its_own_cluster():
    futures, gains = texts("x", "y", "y", "y"), [0.05, 0.0, 0.1, -0.1]
    law = 0.5 * softmax(np.array(gains) / 0.2) + 0.5 * softmax(np.array([0.25, 0.75, 0.75, 0.75]))
    strategy, context = Phi(by="answer", tau=0.2), marks(0)
    # With places for more than have an advantage, all four are drawn among: the first of one place in two.
    counts = Counter()
    for _ in range(2000):
        (chosen,), agreement = strategy._choose(context, futures, [gain - 1 for gain in gains], 1, 0)
        counts[chosen] += 1
        assert agreement == 0.75
    assert chi_square(counts, dict(enumerate(law)), 2000) > 1e-3


def test_steps_without_an_advantage_are_chosen_only_if_there_are_too_few_others():
    futures = texts("x", "y", "z", "w")
    for seed in range(20):
        enough, _ = Phi(by="answer")._choose(marks(seed), futures, [0.2, -0.1, 0.0, 0.3], 2, 0)
        assert enough == [0, 3]
    seen = {tuple(Phi(by="answer", tau=9)._choose(marks(s), futures, [0.2, -0.1, 0, -0.3], 2, 0)[0]) for s in range(50)}
    assert len(seen) > 3


def test_a_future_without_an_answer_agrees_with_no_other_one():
    _, agreement = Phi(by="answer")._choose(marks(0), texts("", "", "", "x"), [0.0] * 4, 1, 0)
    assert agreement == 0.25


def two_step_model():
    """One token of two, one more, then the end; how sure the second is depends on the first."""
    table = {(): np.array([0, 0.6, 0.4]), (1,): np.array([0, 0.5, 0.5]), (2,): np.array([0, 0.95, 0.05])}
    return ToyModel(("", "a ", "b "), table)


def test_one_beam_follows_the_law_of_foresight():
    # Two candidates with a future each; one step is drawn by futures' probabilities and agreement, worked out here.
    model, tau = two_step_model(), 0.3
    warm = {prefix: model.conditional(prefix, 0.8) for prefix in ((), (1,), (2,))}
    first = Counter()
    for i, j in np.ndindex(2, 2):
        for x, y in np.ndindex(2, 2):
            steps, ends = (i + 1, j + 1), (x + 1, y + 1)
            chance = warm[()][steps[0]] * warm[()][steps[1]] * warm[(steps[0],)][ends[0]] * warm[(steps[1],)][ends[1]]
            gains = np.array([np.log(model.table[(s,)][e]) / 2 for s, e in zip(steps, ends, strict=True)])
            same = (steps[0], ends[0]) == (steps[1], ends[1])
            weights = 0.5 * softmax(gains / tau) + 0.5 * softmax(np.array([1.0, 1.0] if same else [0.5, 0.5]))
            first[steps[0]] += chance * weights[0]
            first[steps[1]] += chance * weights[1]
    law = {(s, e, 0): first[s] * warm[(s,)][e] for s in (1, 2) for e in (1, 2)}
    strategy = Phi(n=1, m=2, until=TOKEN, sigma=9, tau=tau, by="answer", min_steps=40)
    results = run_many(strategy, 300, model=model)
    assert chi_square(Counter(result.best.tokens for result in results), law, 300) > 1e-3


@pytest.mark.parametrize("spec", ["phi:n=1,m=1,until=1", "phi:n=1,m=1,until=1,min_steps=1", "phi:n=1,m=1,by=answer"])
def test_one_candidate_follows_the_models_law_whatever_its_future(spec):
    assert_law(run_many(parse_strategy(spec), RUNS), WARM)


def first_candidates(result, count):
    """The candidates of the first level."""
    return [node for node in result.trace.tree()[1 : count + 1] if node.parent == 0]


def test_unlikely_candidates_get_no_future():
    for seed in range(20):
        result = search("phi:n=1,m=8,until=1,sigma=0.5,min_steps=9", seed=seed)
        candidates = first_candidates(result, 8)
        assert len(candidates) == 8
        sure = np.array([node.logprob for node in candidates])
        worthy = sure >= sure.mean() - 0.5 * sure.std() - 1e-9
        for node, is_worthy in zip(candidates, worthy, strict=True):
            if node.status in ("open", "dropped"):
                assert bool(node.children) == is_worthy


def test_pruning_leaves_at_least_as_many_as_there_are_places():
    for seed in range(10):
        result = search("phi:n=6,m=1,until=1,sigma=0,min_steps=9", seed=seed)
        candidates = first_candidates(result, 6)
        assert all(node.children or node.status == "stop" for node in candidates)


def test_looking_ahead_stops_when_the_futures_agree():
    def candidates(**options):
        result = search(Phi(n=2, m=3, until=TOKEN, sigma=9, **options), model=endless())
        tree = result.trace.tree()
        assert all(candidate.node.finish_reason == "stop" for candidate in result.candidates)
        return [sum(len(node.children) > 2 for node in tree if depth_of(tree, node) == depth) for depth in range(4)]

    # A root with six candidates, then two beams with a future and three candidates each.
    assert candidates(agree=1.0, min_steps=1) == [1, 2, 2, 2]
    assert candidates(agree=0.0, min_steps=1) == [1, 0, 0, 0]
    assert candidates(agree=0.0, min_steps=3) == [1, 2, 2, 0]


def test_looking_ahead_stops_when_all_chosen_steps_are_the_same():
    certain = ToyModel(("", "a ", "b "), {(): np.array([0, 1.0, 0]), (1,): np.array([0, 0.5, 0.5])})
    result = search(Phi(n=2, m=2, until=TOKEN, agree=1.0, min_steps=9), model=certain)
    tree = result.trace.tree()
    # Four candidates and their futures, then two beams that are finished at once.
    assert len(tree) - 1 == 4 + 4 + 2


def test_every_future_is_thrown_away_and_counted_as_discarded():
    result = search(Phi(n=2, m=3, until=TOKEN, sigma=9, agree=1.0, foresight=2), model=endless())
    best_paths = {candidate.node.key for candidate in result.candidates}
    assert len(best_paths) == 2
    drawn = sum(event.num_tokens for event in result.trace.events if isinstance(event, Grown))
    assert result.ledger.generated == drawn
    # Two paths of five tokens at most are kept; six futures of two tokens on each of three levels are among the rest.
    assert result.ledger.discarded >= drawn - 2 * 5
    assert levels(result)[1] == 6


def test_own_part_of_a_node():
    root = Node(BranchKey.root(0, "phi"))
    step = Node(root.key.child(0), root, (1,), "one ", token_logprobs=(-3.0,), num_new_tokens=1)
    future = Node(step.key.child(0), step, (1, 2, 2), "one two", token_logprobs=(-3.0, -1.0, -2.0), num_new_tokens=2)
    assert own_text(future) == "two"
    assert own_logprob(future) == -1.5


def test_a_failure_while_looking_ahead_is_not_swallowed():
    class Failing(ToyBackend):
        async def extend(self, node, params, n=1, first_child=0, step_end=None):
            if node.depth == 1:
                raise RequestError("the future cannot be seen")
            async for child in super().extend(node, params, n, first_child, step_end):
                yield child

    backend = Failing(ToyModel.random(0), max_model_len=24)
    with pytest.raises(RequestError, match="cannot be seen"):
        asyncio.run(solve(Phi(n=2, m=3, until=TOKEN), Problem("p", "xy"), backend))


@pytest.mark.parametrize(
    "options", ["n=0", "m=0", "foresight=0", "clusters=0", "iters=0", "tau=0", "sigma=-1", "agree=2", "by=size"]
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        parse_strategy(f"phi:{options}")
