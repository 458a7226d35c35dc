// Requests with the key of this tab.

export class ApiProblem extends Error {
  constructor(status, problem) {
    super([problem.detail ?? problem.title ?? `The server answered ${status}.`, problem.hint].filter(Boolean).join(" "));
    this.status = status;
  }
}

export async function get(path, signal) {
  const headers = { Accept: "application/json", Authorization: `Bearer ${sessionStorage.getItem("key")}` };
  // Relative to the page, which a proxy may have put under a path.
  const response = await fetch(new URL(`.${path}`, document.baseURI), { headers, signal });
  if ([502, 503, 504].includes(response.status)) throw new Error("The server is busy.");
  if (!response.ok) throw new ApiProblem(response.status, await response.json().catch(() => ({})));
  return response.json();
}

export async function* pages(path, signal) {
  let after = "";
  do {
    const page = await get(`${path}?limit=100${after}`, signal);
    yield* page.data;
    after = page.has_more ? `&after=${encodeURIComponent(page.next)}` : "";
  } while (after);
}
