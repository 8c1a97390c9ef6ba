// What a tab keeps over a reload. Where the browser keeps nothing (private mode, full storage), nothing is kept.

export function load<T>(key: string, otherwise: T): T {
  try {
    const kept = sessionStorage.getItem(key);
    return kept === null ? otherwise : (JSON.parse(kept) as T);
  } catch {
    return otherwise;
  }
}

export function save(key: string, value: unknown): void {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    sessionStorage.removeItem(key); // too large: better no conversation than half of one
  }
}
