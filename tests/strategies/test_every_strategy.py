"""The laws that every strategy keeps, over the registered ones in several configurations."""

import pytest

from ramify import registry
from ramify.strategies import parse_strategy
from ramify.strategies.testing import check_budget_and_ledger, check_one_answer_per_seed, check_stopping_at_any_moment

SPECS = [
    "sample",
    "sample:temperature=0",
    "sample:max_tokens=2",
    "self-consistency:n=5",
    "best-of-n:n=5",
    "best-of-n:n=5,select=weighted,agg=prod",
    "best-of-n:n=4,select=soft,scorer=logprob",
    "best-of-n:n=4,ties=random,scorer=rule",
    "beam:n=4,m=2",
    "beam:n=6,m=3,select=vote,agg=min",
    "beam:n=4,m=2,until=1,max_tokens=3",
    "particle-filter:n=4",
    "particle-filter:n=5,until=1,resampling=multinomial,select=vote",
    "particle-filter:n=4,until=1,potential=incremental,ess=0.5,select=sample,resampling=residual",
]


def test_every_registered_strategy_is_under_the_laws():
    covered = {spec.partition(":")[0] for spec in SPECS}
    assert covered >= {entry.name for entry in registry.techniques("strategy")}


@pytest.mark.parametrize("spec", SPECS)
def test_the_result_does_not_depend_on_which_branch_ends_first(spec):
    check_one_answer_per_seed(parse_strategy(spec))


@pytest.mark.parametrize("spec", SPECS)
def test_the_budget_is_kept_and_the_ledger_is_the_backends_own_count(spec):
    check_budget_and_ledger(parse_strategy(spec))


@pytest.mark.parametrize("spec", SPECS)
def test_stopping_at_any_moment_gives_a_valid_result(spec):
    check_stopping_at_any_moment(parse_strategy(spec))
