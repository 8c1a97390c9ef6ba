// What the server does now: throughput, latencies, queue and the map of its KV memory, read every two seconds.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiFailure, call } from "../api/client";
import { parseMetrics, percentile, total, type Sample } from "../api/metrics";
import { KVMap } from "./KVMap";
import { Sparkline } from "./Sparkline";

const EVERY_MS = 2000;
const KEPT = 90;

interface Reading {
  at: number;
  samples: Sample[];
}

interface Point {
  throughput: number;
  running: number;
  waiting: number;
  kv: number;
}

export function Dashboard({ model }: { model: string }) {
  const [points, setPoints] = useState<Point[]>([]);
  const [window_, setWindow] = useState<[Reading, Reading] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const readings = useRef<Reading[]>([]);

  useEffect(() => {
    readings.current = [];
    setPoints([]);
    setWindow(null);
    let alive = true;
    const read = async () => {
      try {
        const samples = parseMetrics(await (await call("metrics")).text());
        if (!alive) return;
        setError(null);
        const now = { at: performance.now(), samples };
        const before = readings.current[readings.current.length - 1];
        readings.current = [...readings.current, now].slice(-16);
        setWindow([readings.current[0]!, now]);
        if (before !== undefined) setPoints((old) => [...old, pointOf(before, now, model)].slice(-KEPT));
      } catch (failure) {
        if (alive) setError(failure instanceof ApiFailure ? failure.message : String(failure));
      }
    };
    void read();
    const timer = setInterval(() => void read(), EVERY_MS);
    return () => {
      alive = false;
      clearInterval(timer);
    };
  }, [model]);

  const last = points[points.length - 1];
  return (
    <section class="dashboard" aria-label="Server">
      {error !== null && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      <div class="tiles">
        <Tile name="Tokens a second" value={last?.throughput} digits={0} history={points.map((point) => point.throughput)} />
        <Tile name="Running sequences" value={last?.running} digits={0} history={points.map((point) => point.running)} />
        <Tile name="Waiting sequences" value={last?.waiting} digits={0} history={points.map((point) => point.waiting)} />
        <Tile name="KV memory in use, %" value={last === undefined ? undefined : last.kv * 100} digits={1} history={points.map((point) => point.kv)} />
      </div>
      {window_ !== null && <Latencies window={window_} model={model} />}
      <KVMap model={model} />
    </section>
  );
}

const HISTOGRAMS = {
  "time to first token": "vllm:time_to_first_token_seconds",
  "between tokens": "vllm:inter_token_latency_seconds",
  "whole request": "vllm:e2e_request_latency_seconds",
} as const;

function Latencies({ window: [first, last], model }: { window: [Reading, Reading]; model: string }) {
  const seconds = Math.round((last.at - first.at) / 1000);
  return (
    <table>
      <caption>Latency over the last {seconds} seconds, in milliseconds</caption>
      <thead>
        <tr>
          <th scope="col">of</th>
          <th scope="col">median</th>
          <th scope="col">95%</th>
          <th scope="col">99%</th>
        </tr>
      </thead>
      <tbody>
        {Object.entries(HISTOGRAMS).map(([words, name]) => (
          <tr key={name}>
            <th scope="row">{words}</th>
            {[0.5, 0.95, 0.99].map((share) => {
              const value = percentile(first.samples, last.samples, name, share, model);
              return (
                <td key={share} class="amount">
                  {value === null ? "–" : (value * 1000).toFixed(1)}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Tile({ name, value, digits, history }: { name: string; value: number | undefined; digits: number; history: number[] }) {
  return (
    <div class="tile">
      <h2>{name}</h2>
      <p class="big">{value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits })}</p>
      <Sparkline values={history} name={name} />
    </div>
  );
}

function pointOf(before: Reading, now: Reading, model: string): Point {
  const seconds = Math.max(0.001, (now.at - before.at) / 1000);
  const drawn = (reading: Reading) => total(reading.samples, "vllm:generation_tokens_total", model);
  return {
    throughput: Math.max(0, drawn(now) - drawn(before)) / seconds,
    running: total(now.samples, "vllm:num_requests_running", model),
    waiting: total(now.samples, "vllm:num_requests_waiting", model),
    kv: total(now.samples, "vllm:kv_cache_usage_perc", model),
  };
}
