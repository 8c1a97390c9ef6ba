"""Ballots for the tests of selectors: drawn at random, and permuted."""

from hypothesis import strategies as st

from ramify.strategies.selection.ballots import Ballot

LOGPROBS = st.floats(-30, 0, allow_nan=False, width=32)


def ballot(answer, length=3, logprob=-1.0, finished=True, text=None):
    text = f"{answer} {length} {logprob}" if text is None else text
    return Ballot(answer, text, tuple(text.encode()), length, logprob, finished)


BALLOTS = st.lists(
    st.builds(
        ballot,
        st.sampled_from([None, "a", "b", "c"]),
        st.integers(1, 40),
        LOGPROBS,
        st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=9,
)


@st.composite
def permuted(draw, with_scores=False):
    """Ballots, an order of them, and scores if asked for."""
    ballots = draw(BALLOTS)
    order = draw(st.permutations(range(len(ballots))))
    scores = draw(st.lists(st.floats(0, 1, width=32), min_size=len(ballots), max_size=len(ballots)))
    return (ballots, order, scores) if with_scores else (ballots, order)
