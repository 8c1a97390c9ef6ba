// One node whole: what it says, what it cost, how it was judged, and the way to it.

import { useState } from "preact/hooks";
import type { Tree, TraceNode } from "../trace/tree";
import { describe, title, visible } from "./marks";

const SHOWN = 200;

interface Props {
  tree: Tree;
  id: number;
  onSelect: (id: number) => void;
}

export function NodePanel({ tree, id, onSelect }: Props) {
  const node = tree.node(id);
  const way = tree.path(id);
  return (
    <section class="node-panel" aria-label={`Node ${id}`}>
      <header>
        <h2>{title(node)}</h2>
        <CopyLink id={id} />
      </header>
      <p class="faint">{describe(node)}</p>
      {node.text !== "" && <Text text={node.text} />}
      <dl class="facts">
        {[...node.scores].map(([name, value]) => (
          <Fact key={name} name={`score: ${name}`} value={value.toFixed(4)} />
        ))}
        {node.logprob !== null && <Fact name="log-probability" value={node.logprob.toFixed(3)} />}
        <Fact name="tokens" value={String(node.tokens)} />
        <Fact name="tokens from the root" value={String(way.reduce((sum, step) => sum + step.tokens, 0))} />
        <Fact name="born, event" value={String(node.born)} />
        {node.died !== null && <Fact name="dropped, event" value={String(node.died)} />}
        {node.steps !== null && <Fact name="engine steps" value={`${node.steps.first} to ${node.steps.last}`} />}
        {node.tokenIds.length > 0 && <Fact name="token ids" value={node.tokenIds.join(" ")} />}
      </dl>
      {node.probes.map((probe, i) => (
        <div key={i}>
          <h3>Probe, {probe.tokens} tokens</h3>
          <Text text={probe.text} />
        </div>
      ))}
      <h3>The way here</h3>
      {way.length > SHOWN && <p class="faint">{way.length - SHOWN} earlier nodes are in the list of nodes.</p>}
      <ol class="way" start={Math.max(0, way.length - SHOWN) + 1}>
        {way.slice(-SHOWN).map((step) => (
          <li key={step.id}>
            <NodeLink node={step} onSelect={onSelect} />
            {step.text !== "" && <Text text={step.text} />}
          </li>
        ))}
      </ol>
      {node.children.length > 0 && (
        <>
          <h3>Children</h3>
          <ul class="children">
            {node.children.slice(0, SHOWN).map((child) => (
              <li key={child}>
                <NodeLink node={tree.node(child)} onSelect={onSelect} />
              </li>
            ))}
            {node.children.length > SHOWN && <li>and {node.children.length - SHOWN} more, in the list of nodes</li>}
          </ul>
        </>
      )}
    </section>
  );
}

/** A model's own words, always as text: what it writes can neither become part of the page nor reorder it. */
export function Text({ text }: { text: string }) {
  return (
    <pre class="model-text" dir="auto">
      {visible(text)}
    </pre>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>
        <bdi>{visible(name)}</bdi>
      </dt>
      <dd>{value}</dd>
    </>
  );
}

function NodeLink({ node, onSelect }: { node: TraceNode; onSelect: (id: number) => void }) {
  return (
    <button type="button" class="link" onClick={() => onSelect(node.id)}>
      {describe(node)}
    </button>
  );
}

function CopyLink({ id }: { id: number }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    const address = new URL(location.href);
    address.hash = `node=${id}`;
    history.replaceState(null, "", address);
    await navigator.clipboard?.writeText(address.href).then(
      () => setCopied(true),
      () => setCopied(false), // the address bar has it
    );
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" onClick={copy}>
      {copied ? "Copied" : "Link to this node"}
    </button>
  );
}
