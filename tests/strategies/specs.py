"""Every registered strategy in small configurations that run on the toy model, for the laws that all of them keep."""

from ramify.strategies import parse_strategy
from ramify.strategies.registry import Strategy
from ramify.strategies.stopping.self_truncation import SelfTruncation

SPECS = [
    # selection
    "sample",
    "sample:temperature=0",
    "sample:max_tokens=2",
    "self-consistency:n=5",
    "best-of-n:n=5",
    "best-of-n:n=5,select=weighted,agg=prod",
    "best-of-n:n=4,select=soft,scorer=logprob",
    "best-of-n:n=4,ties=random,scorer=rule",
    "weighted-vote:n=5",
    "weighted-vote:n=5,scorer=prm",
    "confidence-vote:n=5,window=2,measure=lowest,keep=0.5",
    "shortest-majority:n=5",
    "rpc:n=6",
    "mbr:n=5",
    "tournament:n=5",
    "tournament:n=6,limit=2,among=samples",
    "synthesis:n=4,m=2,among=all,template={answers},item={answer}",
    # stopping
    "adaptive-consistency:n=8,tau=0.8",
    "adaptive-consistency:n=8,tau=0.8,window=8",
    "adaptive-consistency:n=8,order=finish,stride=1",
    "doubling:n=9",
    "saturation:n=8",
    "self-calibration:scorer=prm,n=6",
    "first-finish:stride=1",
    "short-m:k=5,m=2,stride=2",
    "calibrated-prm:n=9,first=3,target=0.7,until=1",
    "certaindex:until=1,suffix=a,n=4",
    "deepconf:n=8,warmup=4,window=2,until=1,batch=2",
    "speculative-rejection:n=6,memory=12,first=2",
    "trimr:n=3,until=1,suffix=a,answer_tokens=2",
    "fractured:n=2,m=2,depths=2,until=1,suffix=a,answer_tokens=2",
    "mur:k=3,until=1",
    # search
    "beam:n=4,m=2",
    "beam:n=6,m=3,select=vote,agg=min",
    "beam:n=4,m=2,until=1,max_tokens=3",
    "lookahead:n=4,m=2,until=1",
    "dvts:n=4,m=2,until=1",
    "rebase:n=5,until=1",
    "stochastic-beam:n=4,m=2,scorer=prm,until=1",
    "a-star:m=3,until=1",
    "phi:n=2,m=2,until=1,foresight=2",
    "treebon:n=4,m=2,layers=2,segment=1",
    "mcts:simulations=8",
    "mcts:simulations=6,width=3,value=agreement,until=1,parallel=2,depth=2",
    "mcts:simulations=5,width=2,value=rollout,until=1,select=value",
    "token-mcts:simulations=3,k=3",
    "token-mcts:simulations=3,k=3,value=step",
    "ab-mcts-a:trials=5,until=1",
    "ab-mcts-m:trials=5,until=1,parallel=2",
    "ab-mcts-m:trials=5,refine=ask,template={answer}",
    "agent-search:expansions=6",
    "lambada:labels=a/aa/aaa,answer={verdict}",
    # particles
    "particle-filter:n=4",
    "particle-filter:n=5,until=1,resampling=multinomial,select=vote",
    "particle-filter:n=4,until=1,potential=incremental,ess=0.5,select=sample,resampling=residual",
    "particle-gibbs:n=3,sweeps=3",
    "particle-gibbs:n=3,sweeps=3,until=1,ancestor=true,temperature=1,select=sample,ess=0.9",
    "smc-steering:n=4,forbid=ab|c,max_tokens=3,select=vote,ess=1",
    # length
    "budget-forcing:start_think=,end_think=b\\n,answer_prefix=a,wait=c\\n,max_think=2",
    "thinking-mode:effort=none,start_think=a,end_think=b\\n,answer_prefix=,empty=",
    "anytime:start_think=,end_think=b\\n,answer_prefix=,stride=1",
    # programs: prompts of one word where the toy's context is to hold them, else what is done without room for asking
    "self-refine:rounds=2,scorer=prm,feedback_prompt={question}{answer},revise_prompt={question}{answer}{feedback}",
    "self-refine:rounds=2",
    "annealing:rounds=2,feedback_prompt={question}{answer},revise_prompt={question}{answer}{feedback}",
    "iad:rounds=3,width=2",
    "feedback-edit:n=2,k=1,feedback_prompt={question}{answer},edit_prompt={question}{answer}{feedback}",
    "mind-evolution:generations=2,islands=2,conversations=2,turns=1",
    "archon:layers=generator:3/fuser:2/fuser,fuser_prompt={answers},item={answer}",
    "archon",
    "moa:layers=2,prompt={answers},item={answer}",
    "spec-reason:small=small",
    "entropy-switch:small=small",
    "nudging:small=small",
    "cascade:cheaper=small",
]

STRATEGIES: dict[str, Strategy] = {spec: parse_strategy(spec) for spec in SPECS}
STRATEGIES["self-truncation"] = SelfTruncation(
    n=4, batch=2, until=parse_strategy("beam:until=1").until, suffix="b\n", better="a", settled="c\n"
)
"""By spec; the last one's texts cannot be written in a spec."""
