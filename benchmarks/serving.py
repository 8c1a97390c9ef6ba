"""Throughput of `ramify serve` at many streams at once, as a share of the offline engine on the same work.

Both get the same prompts with the same seeds and draw the same tokens. They take turns, a process each, so that a
change of the machine's load hits both; the result is the median and the range of the ratios of neighbouring runs. The
client shares the machine with the server, so it only counts bytes: one thread, plain sockets, no JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
"""About 30 million random weights."""
_SERVE = "from ramify.cli.main import app; app()"
_END = b"0\r\n\r\n"
_READ_BYTES = 1 << 18


def make_model(folder: Path) -> None:
    """Write the random-weight checkpoint, with a small tokenizer."""
    from tests.checkpoints import make_checkpoint

    make_checkpoint(folder, "llama2", **SHAPE)


def bodies(streams: int, max_tokens: int, seed: int) -> list[dict[str, Any]]:
    """The requests of one run; another seed gives other prompts, so that no prefix is found in a cache."""
    return [
        {
            "prompt": f"{seed}: Tom has {number} apples and buys {7 * number + seed} more.",
            "max_tokens": max_tokens,
            "seed": 1000 * seed + number,
            "temperature": 1.0,
            "ignore_eos": True,
        }
        for number in range(streams)
    ]


class Offline:
    """`LLM.generate` in a process of its own."""

    def __init__(self, model: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.serving", "--offline", model, "--threads", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = psutil.Process(self._process.pid)

    def run(self, requests: list[dict[str, Any]]) -> float:
        """Seconds for all of them together."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def offline(model: str, threads: int) -> None:
    """The other side of `Offline`."""
    from ramify import LLM, SamplingParams

    llm = LLM(model, num_threads=threads or None)
    for line in sys.stdin:
        requests = json.loads(line)
        params = [SamplingParams(**{key: r[key] for key in r if key != "prompt"}) for r in requests]
        started = time.perf_counter()
        llm.generate([r["prompt"] for r in requests], params, use_tqdm=False)
        print(time.perf_counter() - started, flush=True)


class Client:
    """Streams of one server, each over a connection of its own.

    Attributes:
        bytes, reads: what came in the last run.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.bytes = self.reads = 0

    def run(self, requests: list[dict[str, Any]], extra: dict[str, Any]) -> float:
        """Seconds until all streams have ended.

        Raises:
            RuntimeError: one did not end as a stream does.
        """
        heads = []
        for request in requests:
            body = json.dumps({**request, "model": "model", "stream": True, **extra}).encode()
            head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            heads.append(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.bytes = self.reads = 0
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            started = time.perf_counter()
            for head in heads:
                stream = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
                stream.send(head)
                stream.setblocking(False)
                selector.register(stream, selectors.EVENT_READ, bytearray())
            while selector.get_map():
                for key, _ in selector.select():
                    self._read(selector, key)
            return time.perf_counter() - started

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        data = key.fileobj.recv(_READ_BYTES)
        self.bytes += len(data)
        self.reads += 1
        tail = key.data
        tail += data
        del tail[:-64]
        if tail.endswith(_END):
            selector.unregister(key.fileobj)
        if not data or (tail.endswith(_END) and b"[DONE]" not in tail):
            raise RuntimeError(f"a stream ended with {bytes(tail)!r}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(model: str, threads: int, log: Path) -> Iterator[tuple[int, psutil.Process]]:
    """`ramify serve` in a process of its own; gives its port, and the process."""
    port = free_port()
    command = [sys.executable, "-c", _SERVE, "serve", f"model={model}", "--port", str(port)]
    command += ["--log-level", "warning"]
    if threads:
        command += ["--num-threads", str(threads)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text()}")
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def compare(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Let the two take turns."""
    other = Offline(model, options.threads)
    rates: dict[str, list[float]] = {"offline": [], "server": []}
    tokens = options.streams * options.max_tokens
    with server(model, options.threads, options.log) as (port, front):
        client = Client(port)
        parts = {"offline": other.process, "front": front, "engine": front.children()[0], "client": psutil.Process()}
        used = dict.fromkeys(parts, 0.0)
        for number in range(-1, options.pairs):  # the first is for warming up
            requests = bodies(options.streams, options.max_tokens, number + 1)
            before = {name: cpu_seconds(part) for name, part in parts.items()}
            alone_s, served_s = other.run(requests), client.run(requests, {})
            if number >= 0:
                for name, part in parts.items():
                    used[name] += cpu_seconds(part) - before[name]
                rates["offline"].append(tokens / alone_s)
                rates["server"].append(tokens / served_s)
    other.close()
    ratios = [ours / theirs for ours, theirs in zip(rates["server"], rates["offline"], strict=True)]
    return {
        "model": model,
        "streams": options.streams,
        "max_tokens": options.max_tokens,
        "tokens_per_second": {name: summary(values) for name, values in rates.items()},
        "cpu_ms_per_token": {name: round(1000 * seconds / tokens / options.pairs, 4) for name, seconds in used.items()},
        "reads_per_token": round(client.reads / tokens, 3),
        "share_of_offline": summary(ratios),
    }


def main() -> None:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["nano", "runs/llama-30m-random"])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="of torch, on both sides; 0 leaves torch's setting")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--log", type=Path, default=Path(os.devnull))
    parser.add_argument("--offline", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offline:
        offline(options.offline, options.threads)
        return
    for model in options.models:
        if model.startswith("runs/") and not Path(model).exists():
            make_model(Path(model))
        print(json.dumps(compare(model, options), indent=2))


if __name__ == "__main__":
    main()
