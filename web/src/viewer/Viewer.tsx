// The viewer: one run as a picture, a list, a timeline, events and a ledger, with one node chosen among all of them.

import { useEffect, useId, useMemo, useState } from "preact/hooks";
import { EVERYTHING, FILTERS, matches, withAncestors, type Filter, type Query } from "../trace/filter";
import type { Tree } from "../trace/tree";
import { EventList } from "./EventList";
import { LedgerTable } from "./LedgerTable";
import { visible } from "./marks";
import { NodePanel } from "./NodePanel";
import { Outline } from "./Outline";
import { Timeline } from "./Timeline";
import { TreeCanvas } from "./TreeCanvas";

const TABS = { tree: "Tree", nodes: "Nodes", timeline: "Timeline", events: "Events", ledger: "Ledger" } as const;
type Tab = keyof typeof TABS;

interface Props {
  tree: Tree;
  /** Changes whenever the tree does (a live run). */
  version: number;
  /** Whether the chosen node is part of the page's address. */
  permalinks: boolean;
}

export function Viewer({ tree, version, permalinks }: Props) {
  const name = useId(); // several viewers may share a page
  const [tab, setTab] = useState<Tab>("tree");
  const [query, setQuery] = useState<Query>(EVERYTHING);
  const [selected, setSelected] = useSelection(tree, permalinks);
  const all = query === EVERYTHING || (query.text === "" && query.filter === "all" && query.minScore === null);
  const found = useMemo(() => (all ? null : matches(tree, query)), [tree, version, query]);
  const foundSet = useMemo(() => (found === null ? null : new Set(found)), [found]);
  const shown = useMemo(() => (found === null ? null : withAncestors(tree, found)), [found]);
  const next = (step: number) => {
    if (found === null || found.length === 0) return;
    const at = selected === null ? -1 : found.indexOf(selected);
    setSelected(found[(at + step + found.length) % found.length]!);
  };
  return (
    <div class="viewer">
      <form class="query" role="search" onSubmit={(event) => (event.preventDefault(), next(1))}>
        <label>
          Search
          <input
            type="search"
            value={query.text}
            placeholder="text or node number"
            onInput={(event) => setQuery({ ...query, text: event.currentTarget.value })}
          />
        </label>
        <label>
          Show
          <select value={query.filter} onChange={(event) => setQuery({ ...query, filter: event.currentTarget.value as Filter })}>
            {Object.entries(FILTERS).map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label>
          Score from
          <input
            type="number"
            step="0.05"
            class="narrow"
            value={query.minScore ?? ""}
            onInput={(event) => setQuery({ ...query, minScore: event.currentTarget.value === "" ? null : event.currentTarget.valueAsNumber })}
          />
        </label>
        <button type="button" onClick={() => next(-1)} disabled={!found?.length}>
          Previous
        </button>
        <button type="submit" disabled={!found?.length}>
          Next
        </button>
        <output aria-live="polite">{found === null ? `${tree.nodes.length} nodes` : `${found.length} of ${tree.nodes.length} nodes`}</output>
      </form>
      <Tabs name={name} tab={tab} onTab={setTab} />
      <div class="viewer-body">
        <div class="viewer-main" role="tabpanel" id={`${name}-panel`} aria-labelledby={`${name}-${tab}`} tabIndex={-1}>
          {tab === "tree" && (
            <TreeCanvas tree={tree} version={version} shown={shown} found={foundSet} selected={selected} onSelect={setSelected} />
          )}
          {tab === "nodes" && <Outline tree={tree} version={version} shown={shown} selected={selected} onSelect={setSelected} />}
          {tab === "timeline" && <Timeline tree={tree} version={version} selected={selected} onSelect={setSelected} />}
          {tab === "events" && <EventList tree={tree} onSelect={setSelected} />}
          {tab === "ledger" && (tree.ledger === null ? <p>The run has not ended: no ledger yet.</p> : <LedgerTable ledger={tree.ledger} />)}
          {tree.notes.map((note, i) => (
            <p key={i} class="note">
              Note: <bdi>{visible(note)}</bdi>
            </p>
          ))}
        </div>
        {selected !== null && selected < tree.nodes.length && (
          <aside class="viewer-side" aria-label="The chosen node">
            <button type="button" class="close" onClick={() => setSelected(null)}>
              Close
            </button>
            <NodePanel tree={tree} id={selected} onSelect={setSelected} />
          </aside>
        )}
      </div>
    </div>
  );
}

function Tabs({ name, tab, onTab }: { name: string; tab: Tab; onTab: (tab: Tab) => void }) {
  const names = Object.keys(TABS) as Tab[];
  const onKey = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const to = names[(names.indexOf(tab) + step + names.length) % names.length]!;
    onTab(to);
    document.getElementById(`${name}-${to}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label="Views of the run" onKeyDown={onKey}>
      {names.map((each) => (
        <button
          key={each}
          type="button"
          role="tab"
          id={`${name}-${each}`}
          aria-selected={tab === each}
          aria-controls={tab === each ? `${name}-panel` : undefined}
          tabIndex={tab === each ? 0 : -1}
          onClick={() => onTab(each)}
        >
          {TABS[each]}
        </button>
      ))}
    </div>
  );
}

/** The chosen node; with permalinks it is `#node=12` of the address, and going back goes back. */
function useSelection(tree: Tree, permalinks: boolean): [number | null, (id: number | null) => void] {
  const [selected, setSelected] = useState<number | null>(permalinks ? fromAddress(tree) : null);
  useEffect(() => {
    if (!permalinks) return;
    const follow = () => setSelected(fromAddress(tree));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, [tree, permalinks]);
  const choose = (id: number | null) => {
    setSelected(id);
    if (permalinks) history.replaceState(null, "", id === null ? "#" : `#node=${id}`);
  };
  return [selected, choose];
}

function fromAddress(tree: Tree): number | null {
  const id = Number(/^#node=(\d+)$/u.exec(location.hash)?.[1] ?? NaN);
  return Number.isInteger(id) && id < tree.nodes.length ? id : null;
}
