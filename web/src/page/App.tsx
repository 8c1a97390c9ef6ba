// The page: chat, comparison and dashboard over one server, which may come and go.

import { useEffect, useState } from "preact/hooks";
import { ApiFailure, apiKey, call, models, strategies, type StrategyCard } from "../api/client";
import { Chat } from "./Chat";
import { Compare } from "./Compare";
import { Dashboard } from "./Dashboard";

const PAGES = { chat: "Chat", compare: "Compare", server: "Server" } as const;
type Page = keyof typeof PAGES;

const CHECK_MS = 3000;

type Connection = "connecting" | "there" | "lost" | "locked";

export function App() {
  const [page, setPage] = usePage();
  const [connection, setConnection] = useState<Connection>("connecting");
  const [names, setNames] = useState<string[]>([]);
  const [cards, setCards] = useState<StrategyCard[]>([]);
  const [model, setModel] = useState("");
  const [keyNumber, setKeyNumber] = useState(0);

  // The server is looked for all the time: while it is gone the page says so, and goes on when it is back.
  useEffect(() => {
    let alive = true;
    let known = false;
    const look = async () => {
      try {
        await call("health");
        if (!known) {
          const [listed, methods] = await Promise.all([models(), strategies()]);
          if (!alive) return;
          setNames(listed);
          setCards(methods);
          setModel((old) => (listed.includes(old) ? old : (listed[0] ?? "")));
          known = true;
        }
        if (alive) setConnection("there");
      } catch (failure) {
        if (!alive) return;
        const locked = failure instanceof ApiFailure && (failure.status === 401 || failure.status === 403);
        setConnection(locked ? "locked" : "lost");
        known = false;
      }
    };
    void look();
    const timer = setInterval(() => void look(), CHECK_MS);
    return () => {
      alive = false;
      clearInterval(timer);
    };
  }, [keyNumber]);

  return (
    <>
      <a class="skip" href="#content">
        To the content
      </a>
      <header class="top">
        <h1>ramify</h1>
        <nav aria-label="Pages">
          {(Object.keys(PAGES) as Page[]).map((each) => (
            <a key={each} href={`#${each}`} aria-current={each === page ? "page" : undefined} onClick={() => setPage(each)}>
              {PAGES[each]}
            </a>
          ))}
        </nav>
        <label>
          Model
          <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
            {names.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <State connection={connection} />
      </header>
      {connection === "locked" && <KeyForm onKey={() => setKeyNumber(keyNumber + 1)} />}
      {connection === "lost" && (
        <p class="banner" role="alert">
          The server cannot be reached. What is on the page stays; the page looks for it every few seconds.
        </p>
      )}
      <main id="content" tabIndex={-1}>
        <div hidden={page !== "chat"}>
          <Chat model={model} cards={cards} />
        </div>
        <div hidden={page !== "compare"}>
          <Compare model={model} cards={cards} />
        </div>
        {page === "server" && model !== "" && <Dashboard model={model} />}
      </main>
    </>
  );
}

function State({ connection }: { connection: Connection }) {
  const words = { connecting: "connecting", there: "connected", lost: "server lost", locked: "key needed" }[connection];
  return (
    <p class={`connection ${connection}`} role="status">
      {connection === "there" ? "● " : "○ "}
      {words}
    </p>
  );
}

function KeyForm({ onKey }: { onKey: () => void }) {
  const [key, setKey] = useState("");
  return (
    <form
      class="banner"
      onSubmit={(event) => {
        event.preventDefault();
        apiKey.set(key.trim());
        onKey();
      }}
    >
      <label>
        This server asks for an API key; it is kept in this tab only.
        <input type="password" autocomplete="off" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
      </label>
      <button type="submit" class="primary">
        Use
      </button>
    </form>
  );
}

function usePage(): [Page, (page: Page) => void] {
  const current = (): Page => {
    const name = location.hash.slice(1);
    return name in PAGES ? (name as Page) : "chat";
  };
  const [page, setPage] = useState<Page>(current());
  useEffect(() => {
    const follow = () => setPage(current());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return [page, setPage];
}
