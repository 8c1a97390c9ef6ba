// Calls of this server's own API. The page talks to nobody else.

import type { Ledger, TraceEvent } from "../trace/events";
import { events } from "./sse";

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Method {
  /** Spec such as "beam:n=8"; empty for one plain sample. */
  strategy: string;
  budget: number | null;
}

export interface Outcome {
  strategy: string;
  answer: string | null;
  stop_reason: string;
  ledger: Ledger;
  num_candidates: number;
  notes: string[];
  trace_id: string | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export type Piece =
  | { kind: "text"; text: string }
  | { kind: "reasoning"; text: string }
  | { kind: "event"; event: TraceEvent }
  | { kind: "skipped"; count: number }
  | { kind: "outcome"; outcome: Outcome }
  | { kind: "usage"; usage: Usage }
  | { kind: "finish"; reason: string };

export interface StrategyCard {
  id: string;
  summary: string;
}

/** What the server said of a request that failed, or that it could not be reached. */
export class ApiFailure extends Error {
  constructor(
    message: string,
    readonly status: number | null,
  ) {
    super(message);
  }
}

const KEY = "ramify-api-key";

export const apiKey = {
  get: (): string => sessionStorage.getItem(KEY) ?? "",
  set: (key: string): void => (key === "" ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, key)),
};

export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (apiKey.get() !== "") headers.set("Authorization", `Bearer ${apiKey.get()}`);
  let response: Response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...init, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiFailure("the server cannot be reached", null);
  }
  if (!response.ok) throw new ApiFailure(await reasonOf(response), response.status);
  return response;
}

export async function models(): Promise<string[]> {
  const listed = (await (await call("v1/models")).json()) as { data: { id: string }[] };
  return listed.data.map((model) => model.id);
}

export async function strategies(): Promise<StrategyCard[]> {
  const listed = (await (await call("v1/strategies")).json()) as { data: StrategyCard[] };
  return listed.data;
}

export async function traceOf(id: string): Promise<string> {
  return (await call(`v1/traces/${encodeURIComponent(id)}/content`)).text();
}

/** Ask, and hear of the search and of the answer as they come. Aborting the signal cancels every branch. */
export async function* ask(
  model: string,
  messages: readonly Message[],
  method: Method,
  sampling: Record<string, number>,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const body: Record<string, unknown> = {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...sampling,
  };
  if (method.strategy !== "")
    body.ramify = { strategy: method.strategy, trace: true, ...(method.budget === null ? {} : { budget: method.budget }) };
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(response.body!)) {
    if (data === "[DONE]") return;
    yield* piecesOf(JSON.parse(data) as Chunk);
  }
  throw new ApiFailure("the connection broke off before the answer was whole", null);
}

interface Chunk {
  error?: { message: string };
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null }; finish_reason?: string | null }[];
  usage?: Usage | null;
  ramify?: { events?: ({ type: string } & Record<string, unknown>)[] } & Partial<Outcome>;
}

function* piecesOf(chunk: Chunk): Generator<Piece> {
  if (chunk.error) throw new ApiFailure(chunk.error.message, null);
  for (const event of chunk.ramify?.events ?? []) {
    if (event.type === "skipped") yield { kind: "skipped", count: Number(event.count) };
    else yield { kind: "event", event: { ...event, type: capital(event.type) } as unknown as TraceEvent };
  }
  for (const choice of chunk.choices ?? []) {
    const reasoning = choice.delta?.reasoning_content ?? choice.delta?.reasoning;
    if (reasoning) yield { kind: "reasoning", text: reasoning };
    if (choice.delta?.content) yield { kind: "text", text: choice.delta.content };
    if (choice.finish_reason) yield { kind: "finish", reason: choice.finish_reason };
  }
  if (chunk.ramify?.ledger) yield { kind: "outcome", outcome: chunk.ramify as Outcome };
  if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
}

function capital(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

async function reasonOf(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { error?: { message?: string } };
    return body.error?.message ?? `the server answered ${response.status}`;
  } catch {
    return `the server answered ${response.status}`;
  }
}
