"""Generative verifier: the probability of the word, at once or behind rationales, charged to the verifier."""

import asyncio
import math

import numpy as np
import pytest
import torch

from ramify.backends.base import Node
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import CapabilityError, ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import GenerativeVerifier, Problem, Reading
from ramify.scoring.generative_verifier import DIRECT
from ramify.scoring.scorers import checked_scores
from ramify.strategies import BestOfN, Budget, solve
from ramify.strategies import testing as strategy_testing
from ramify.strategies.testing import BY_TEXT, check_strategy, rising_reward
from tests.checkpoints import reference_model
from tests.engine.harness import checkpoint

PROBLEM = Problem("p", "What is 3 * 4?")
TOY = {"template": "{question}{answer}", "verdict": "a", "yes": "b\n"}


def answers(backend, texts=("It is 12.", "It is 7.")):
    """Answers to the problem, as a script wrote them."""

    async def make():
        root = await backend.root(PROBLEM.prompt, BranchKey.root(1))
        return [
            await backend.append(root, backend.encode(text), root.key.child(place)) for place, text in enumerate(texts)
        ]

    return asyncio.run(make())


def score(scorer, nodes, backend):
    return asyncio.run(checked_scores(scorer, nodes, PROBLEM, backend))


def odds(call, word):
    """Yes is said to 12 with 0.9 and to all else with 0.2; a rationale that begins with B takes off a half."""
    assert word == "Yes"
    chance = 0.9 if "12" in call.text else 0.2
    return math.log(chance / (2 if call.answer.startswith("B") else 1))


def test_direct_it_is_the_probability_of_the_word_behind_the_prompt():
    backend = ScriptedBackend(lambda call: "never asked", odds=odds)
    batch = score(GenerativeVerifier(mode="direct"), answers(backend), backend)
    np.testing.assert_allclose(batch.values, [0.9, 0.2])
    assert batch.num_tokens == 2
    assert backend.calls == []
    assert backend.usage.probe == 2


def test_behind_rationales_it_is_the_mean_over_them():
    backend = ScriptedBackend(lambda call: f"{'AB'[call.index % 2]}: I multiply. ", odds=odds)
    batch = score(GenerativeVerifier(votes=2), answers(backend, ["It is 12."]), backend)
    np.testing.assert_allclose(batch.values, [(0.9 + 0.45) / 2])
    first, second = backend.calls
    assert first.text == second.text
    assert first.text.startswith("What is 3 * 4?\n\nProposed answer:\nIt is 12.\n\nVerify")
    assert batch.num_tokens == backend.usage.generated + backend.usage.probe == 2 * 3 + 2


def test_what_it_reads_stands_behind_the_rationale_and_the_verdict_alone():
    seen = []

    def see(call, word):
        seen.append(call.answer)
        return math.log(0.5)

    backend = ScriptedBackend(lambda call: "Three by four is twelve. So ", odds=see)
    nodes = answers(backend, ["It is 12."])
    score(GenerativeVerifier(rationale_tokens=3, verdict="Correct? "), nodes, backend)
    assert seen == ["Three by four Correct? "]  # cut: all of it is kept


def test_another_model_verifies_where_one_is_named():
    backend = ScriptedBackend(lambda call: "main ", odds=odds, models={"judge": lambda call: "judge "})
    score(GenerativeVerifier(model="judge"), answers(backend), backend)
    assert {call.model for call in backend.calls} == {"judge"}
    with pytest.raises(ScorerError, match="no model 'other'"):
        score(GenerativeVerifier(model="other"), answers(backend), backend)


def test_drawn_tokens_are_the_verifiers_and_nothing_is_left_in_memory():
    backend = ScriptedBackend(lambda call: "Fine, it is right. ", odds=odds)
    nodes = answers(backend)
    live, before = set(backend.live), nodes[0].usage.prompt
    batch = score(GenerativeVerifier(votes=3), nodes, backend)
    meter = nodes[0].usage
    assert (meter.generated, meter.verifier, meter.probe) == (0, 2 * 3 * 4, 2 * 3)
    assert batch.num_tokens == meter.verifier + meter.probe
    assert meter.prompt > before
    assert backend.live == live


def test_a_failure_is_an_error_and_frees_its_memory():
    def fail(call, word):
        if "7" in call.text:
            raise OSError("gone")
        return math.log(0.5)

    backend = ScriptedBackend(lambda call: "So. ", odds=fail)
    nodes = answers(backend)
    live = set(backend.live)
    with pytest.raises(ScorerError, match="OSError: gone"):
        score(GenerativeVerifier(), nodes, backend)
    assert backend.live == live
    tight = ScriptedBackend(lambda call: "So. ", odds=odds, max_model_len=30)
    with pytest.raises(ScorerError, match="mode=direct"):
        score(GenerativeVerifier(verdict="word " * 20), answers(tight), tight)
    with pytest.raises(ScorerError, match="token ids"):
        asyncio.run(checked_scores(GenerativeVerifier(), nodes, Problem("ids", (1, 2)), backend))
    with pytest.raises((ScorerError, CapabilityError), match="log-probabilities"):
        score(GenerativeVerifier(), answers(ScriptedBackend(lambda call: "")), ScriptedBackend(lambda call: "So. "))


def test_on_the_toy_it_is_the_tables_own_number():
    class Endless(dict):
        def get(self, prefix, default=None):
            if prefix not in self:
                self[prefix] = np.random.default_rng([7, *prefix]).dirichlet(np.ones(4))
            return self[prefix]

    toy = ToyBackend(ToyModel(("", "a", "b\n", "c\n"), Endless()), max_model_len=64)
    node = Node(BranchKey.root(5), text="b\n")
    (value,) = asyncio.run(checked_scores(GenerativeVerifier(mode="direct", **TOY), [node], PROBLEM, toy)).values
    assert value == pytest.approx(toy.model.table.get(())[2])
    chain = GenerativeVerifier(votes=4, rationale_tokens=2, temperature=1.0, **TOY)
    (mean,) = asyncio.run(checked_scores(chain, [node], PROBLEM, toy)).values

    async def by_hand():
        root = await toy.root("x", node.key.named("verify/chain"))
        drawn = [child async for child in toy.extend(root, SamplingParams(temperature=1.0, max_tokens=2), 4)]
        said = [child.tokens[:-1] if child.tokens[-1] == 0 else child.tokens for child in drawn]
        return [toy.model.table.get((*tokens, 1))[2] for tokens in said]

    assert mean == pytest.approx(np.mean(asyncio.run(by_hand())))
    assert chain.cost(Reading(3, 9, 9, True)) >= 4 * 3
    assert toy.usage.generated <= 4 * 2 * 2


def test_methods_with_it_keep_the_laws_and_the_budget(monkeypatch):
    def make(seed=0, pace=None, batch_size=None):
        return ToyBackend(ToyModel.random(seed), {"nano-prm": rising_reward}, pace, batch_size, max_model_len=64)

    monkeypatch.setattr(strategy_testing, "toy_backend", make)
    short = GenerativeVerifier(votes=2, rationale_tokens=3, **TOY)
    check_strategy(BestOfN(n=3, scorer=short))
    for tokens in (12, 30, 60):
        result = asyncio.run(
            solve(BestOfN(n=4, scorer=short), PROBLEM, make(), budget=Budget(tokens=tokens), equivalence=BY_TEXT)
        )
        assert result.ledger.total_tokens <= tokens


@pytest.mark.parametrize(
    "options",
    [
        {"votes": 0},
        {"rationale_tokens": 0},
        {"mode": "both"},
        {"mode": "direct", "votes": 2},
        {"votes": 2, "temperature": 0.0},
        {"temperature": -1.0},
        {"yes": ""},
        {"verdict": ""},
        {"template": "{question}"},
    ],
)
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError):
        GenerativeVerifier(**options)


async def test_on_the_engine_it_is_what_transformers_gives_and_the_memory_comes_back():
    folder = checkpoint("llama2")
    verifier = GenerativeVerifier(mode="direct", yes=" 19")
    chain = GenerativeVerifier(votes=3, rationale_tokens=6, yes=" 19")
    async with LocalBackend.load(folder, models=[str(checkpoint("llama3"))], num_kv_blocks=80) as backend:
        root = await backend.root("Tom has 12 apples", BranchKey.root(1))
        nodes = [node async for node in backend.extend(root, SamplingParams(max_tokens=5, ignore_eos=True), 2)]
        batch = await checked_scores(verifier, nodes, PROBLEM, backend)
        for node, value in zip(nodes, batch.values, strict=True):
            prompt = DIRECT.replace("{question}", PROBLEM.prompt).replace("{answer}", node.text.strip())
            ids = [*backend.tokenizer.prompt_ids(({"role": "user", "content": prompt},))]
            word = backend.encode(" 19")
            with torch.no_grad():
                logprobs = torch.log_softmax(reference_model(folder)(torch.tensor([[*ids, *word]])).logits[0], -1)
            wanted = sum(logprobs[len(ids) + i - 1, token].item() for i, token in enumerate(word))
            assert value == pytest.approx(math.exp(wanted), rel=1e-4)
        together = await checked_scores(chain, nodes, PROBLEM, backend)
        alone = [(await checked_scores(chain, [node], PROBLEM, backend)).values[0] for node in nodes]
        assert list(together.values) == alone
        assert len(set(alone)) == 2
        other = GenerativeVerifier(model=str(checkpoint("llama3")), rationale_tokens=4, yes=" 19")
        assert 0 < (await checked_scores(other, nodes, PROBLEM, backend)).values[0] < 1
        meter = root.usage
        assert meter.generated + meter.verifier == backend.usage.generated
        assert (meter.probe, meter.prompt, meter.calls) == (
            backend.usage.probe, backend.usage.prompt, backend.usage.calls,
        )  # fmt: skip
        backend.release([*nodes, root])
        for served in backend._models.values():
            assert served.engine.core.num_free_blocks == served.engine.core.scheduler.pool.num_usable
