"""The law of every selector's answers: all that n draws of the toy model can be, each weighed by its probability."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from ramify.scoring import KeyedBy, RuleCheck
from ramify.strategies import parse_strategy
from ramify.strategies.selection.ballots import Ballot
from ramify.strategies.selection.judges import ModelJudge
from ramify.strategies.selection.mbr import MinimumBayesRisk, mbr
from ramify.strategies.selection.rpc import rpc
from ramify.strategies.selection.self_consistency import majority_of
from ramify.strategies.selection.shortest_majority import shortest_majority
from ramify.strategies.selection.similarity import chrf, edit
from ramify.strategies.selection.tournament import Tournament, score_tournament
from ramify.strategies.selection.weighted_vote import WeightedVote, weighted_vote
from tests.strategies.laws import SMALL, assert_law, run_many

WARM = SMALL.law(0.8)
ALWAYS = KeyedBy(lambda text, problem: text.strip() or "nothing")
N, RUNS = 3, 250


def ballot_of(tokens):
    logprob = sum(math.log(SMALL.next_token(tokens[:at])[tokens[at]]) for at in range(len(tokens)))
    text = SMALL.text(tokens)
    return Ballot(text.strip() or "nothing", text, tokens, len(tokens), logprob)


def law_of(choose):
    """Probability of each outcome when `choose` picks one of N draws."""
    ballots = {tokens: ballot_of(tokens) for tokens in WARM}
    law = Counter()
    for drawn in itertools.product(WARM, repeat=N):
        law[drawn[choose([ballots[tokens] for tokens in drawn])]] += math.prod(WARM[tokens] for tokens in drawn)
    assert math.isclose(sum(law.values()), 1)
    return law


def sure(ballots):
    return [math.exp(ballot.mean_logprob) for ballot in ballots]


def certainty(ballots):
    """Self-certainty, from the table; what cannot be drawn counts as 100 nats."""
    found = []
    for ballot in ballots:
        rows = [SMALL.next_token(ballot.tokens[:at]) for at in range(len(ballot.tokens))]
        logs = [[math.log(chance) if chance > 0 else -100.0 for chance in row] for row in rows]
        found.append(-np.mean([np.mean(row) for row in logs]))
    return found


CASES = {
    "self-consistency": majority_of,
    "weighted-vote": lambda b: weighted_vote(b, sure(b))[0],
    "weighted-vote:scorer=self-certainty,transform=rank": lambda b: weighted_vote(b, certainty(b), "rank")[0],
    "confidence-vote:scorer=self-certainty,keep=0.6": lambda b: weighted_vote(b, certainty(b), "share", keep=0.6)[0],
    "shortest-majority": lambda b: shortest_majority(b)[0],
    "rpc": lambda b: rpc(b)[0],
    "rpc:prune=false,probability=token": lambda b: rpc(b, False, "token")[0],
    "mbr": lambda b: mbr(b, chrf)[0],
    "mbr:similarity=edit": lambda b: mbr(b, edit)[0],
    "tournament:scorer=inverse-perplexity": lambda b: score_tournament(b, sure(b))[0],
}


@pytest.mark.parametrize("spec", CASES)
def test_the_chosen_answers_follow_the_enumerated_law(spec):
    strategy = parse_strategy(f"{spec}{',' if ':' in spec else ':'}n={N}")
    assert_law(run_many(strategy, RUNS, equivalence=ALWAYS), law_of(CASES[spec]))


@pytest.mark.parametrize(
    "strategy",
    [
        MinimumBayesRisk(n=4, similarity=lambda answer, reference: 0.5),
        Tournament(n=4, scorer=RuleCheck(lambda text, problem: True), among="samples"),
        Tournament(n=3, judge=ModelJudge(template="{first}|{second}", letters=("a", "b\n"))),
        WeightedVote(n=2, scorer=RuleCheck(lambda text, problem: True)),
    ],
    ids=["mbr", "tournament", "model", "vote"],
)
def test_a_judgement_that_says_nothing_leaves_the_law_unchanged(strategy):
    assert_law(run_many(strategy, RUNS, equivalence=ALWAYS), WARM)
