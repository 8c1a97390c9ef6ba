"""Two toy models that write one answer together, and the exact laws of single steps of theirs."""

import asyncio
from dataclasses import replace

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.strategies import solve_many
from tests.strategies.laws import BY_TEXT, problems

TEXTS = ("", "a", "b\n")
LARGE = ToyModel.random(1, TEXTS, depth=4)
SMALL = ToyModel.random(12, TEXTS, depth=4)
MODELS = {None: LARGE, "small": SMALL}
TEMPERATURE = 0.8


class OtherPrompt(ToyBackend):
    """The small model's prompt has other ids, as where two families meet: they exchange text."""

    async def root(self, prompt, key, usage=None, model=None):
        root = await super().root(prompt, key, usage, model)
        return root if model is None else self._hold(replace(root, prompt_tokens=(7, *root.prompt_tokens)))


def run_pair(strategy, runs, reward=None, kind=ToyBackend, large=LARGE, small=SMALL, equivalence=BY_TEXT, **options):
    """Results of `runs` independent runs."""
    rewards = {"nano-prm": reward or (lambda tokens: 0.5)}
    backend = kind(large, rewards, max_model_len=24, models={"small": small})
    found = asyncio.run(
        solve_many(strategy, problems(runs), backend, equivalence=equivalence, concurrency=64, **options)
    )
    assert not backend.live
    return found


def chances(model, prefix):
    """(token, probability) of each token that may come next."""
    law = MODELS[model].conditional(prefix, TEMPERATURE)
    return [(token, float(chance)) for token, chance in enumerate(law) if chance > 0]


def grown(law, grow):
    """The law of whole answers: `grow` gives what each unfinished state becomes, as (state, probability, finished)."""
    finished, going = {}, dict(law)
    while going:
        state, mass = going.popitem()
        for after, chance, ended in grow(state):
            into = finished if ended else going
            into[after] = into.get(after, 0.0) + mass * chance
    return finished


def answers(finished):
    """The law of the tokens alone; they come first in a state."""
    law = {}
    for (tokens, *_), mass in finished.items():
        law[tokens] = law.get(tokens, 0.0) + mass
    assert abs(sum(law.values()) - 1) < 1e-9
    return law
