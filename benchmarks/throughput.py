"""Decode and prefill throughput of ramify's torch path beside `transformers` `generate`, on the same random weights.

The two take turns in one process, so that a change of the machine's load hits both; the table gives the median and the
range of the ratios of neighbouring runs. The model has the shape of Qwen2.5-0.5B in bfloat16 and is made on first use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def make_model(folder: Path) -> None:
    """Write the random-weight checkpoint."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**SHAPE)).to(torch.bfloat16).save_pretrained(folder)


def prompts(batch: int, length: int, seed: int) -> list[list[int]]:
    """Random ids, new ones for each run, so that no prefix is ever found in a cache."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, 8000, (batch, length), generator=generator).tolist()


class Ramify:
    """Prefill and decode rates of the engine, by the clock of its own steps."""

    def __init__(self, folder: Path, batch: int, length: int, new_tokens: int) -> None:
        from ramify.config import EngineConfig
        from ramify.engine.loading import load_engine

        blocks = batch * (-(-(length + new_tokens) // 16) + 1)
        config = EngineConfig(num_kv_blocks=blocks, max_num_seqs=batch, max_num_batched_tokens=max(512, batch))
        self.core, _ = load_engine(folder, config)

    def run(self, ids: list[list[int]], new_tokens: int, temperature: float) -> dict[str, float]:
        """Tokens per second of both phases, and the share of decode steps that is not the forward pass."""
        from ramify.engine.request import EngineRequest
        from ramify.randomness import BranchKey
        from ramify.sampling import SamplingParams

        params = SamplingParams(temperature=temperature, max_tokens=new_tokens, ignore_eos=True)
        for place, row in enumerate(ids):
            self.core.add(EngineRequest(tuple(row), params, BranchKey.root(0, str(place))))
        spent = {"prefill": 0.0, "decode": 0.0, "forward": 0.0}
        rows = {"prefill": 0, "decode": 0}
        while self.core.has_work():
            started = time.perf_counter()
            step = self.core.step()
            phase = "decode" if step.num_rows <= len(ids) else "prefill"
            spent[phase] += time.perf_counter() - started
            rows[phase] += step.num_rows
            if phase == "decode":
                spent["forward"] += step.timings_s["forward"]
        return {
            "prefill": rows["prefill"] / spent["prefill"],
            "decode": rows["decode"] / spent["decode"],
            "overhead": 1 - spent["forward"] / spent["decode"],
        }


class Transformers:
    """The same rates of `generate`: a run of one new token is the prefill, what longer runs take more is the decode."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def _generate(self, ids: list[list[int]], new_tokens: int, temperature: float) -> float:
        batch = torch.tensor(ids)
        draw = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        started = time.perf_counter()
        self.model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=0,
            **draw,
        )
        return time.perf_counter() - started

    def run(self, ids: list[list[int]], new_tokens: int, temperature: float) -> dict[str, float]:
        """Tokens per second of both phases."""
        first = self._generate(ids, 1, temperature)
        whole = self._generate(ids, new_tokens, temperature)
        tokens = len(ids) * len(ids[0])
        return {"prefill": tokens / first, "decode": len(ids) * (new_tokens - 1) / (whole - first)}


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/qwen2.5-0.5b-random"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=17)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not (options.model / "config.json").exists():
        make_model(options.model)
    print(f"load average before: {os.getloadavg()}", flush=True)
    ours = Ramify(options.model, options.batch, options.prompt, options.new_tokens)
    theirs = Transformers(options.model)
    rates: dict[str, list[dict[str, float]]] = {"ramify": [], "transformers": []}
    for pair in range(options.pairs + 1):
        ids = prompts(options.batch, options.prompt, pair)
        mine = ours.run(ids, options.new_tokens, options.temperature)
        other = theirs.run(ids, options.new_tokens, options.temperature)
        if pair:  # the first pair warms up
            rates["ramify"].append(mine)
            rates["transformers"].append(other)
        print(f"pair {pair}: ramify {mine} transformers {other}", flush=True)
    report = {
        phase: {
            "ramify_tokens_per_s": summary([each[phase] for each in rates["ramify"]]),
            "transformers_tokens_per_s": summary([each[phase] for each in rates["transformers"]]),
            "ratio": summary([a[phase] / b[phase] for a, b in zip(*rates.values(), strict=True)]),
        }
        for phase in ("prefill", "decode")
    }
    settings = {name: str(value) for name, value in vars(options).items()}
    overhead = summary([each["overhead"] for each in rates["ramify"]])
    print(json.dumps({"settings": settings, **report, "step_overhead": overhead}, indent=2))


if __name__ == "__main__":
    main()
