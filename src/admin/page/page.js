// The page at / of the admin server: fetches the last ten minutes, then reads the events of /api/v1/live, and shows them.
//
// It reads, and explains names with the token. Data of the server goes into text nodes, never into markup. All stored data is
// bounded: 600 seconds, 1,440 minutes, 64 backends. Rows of tables are reused.
"use strict";
(() => {
  // Limits of the stored and shown data.
  const SECONDS = 600, MINUTES = 1440, MAX_ROWS = 64, MAX_RACES = 100;
  // Streams of one browser, which has six connections to a host: some stay free to load pages.
  const MAX_STREAMS = 4;
  // The time in which other tabs report their streams, milliseconds.
  const HEARSAY = 500;
  // The age at which data is shown as old, and the shorter interval at which a page without the stream polls; milliseconds.
  const OLD = 5000, POLL = 4000;
  // The time after a failure of the stream until the next attempt.
  const RETRY = 60000;
  // Limits of occasional requests: the shortest interval, and octets per second.
  const PAUSE = 10000, OCTETS = 20000;

  // ---- Text

  const $ = id => document.getElementById(id);

  // Characters that are invisible or change the direction of text are shown by their number.
  const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

  function put(node, text) {
    text = String(text).replace(UNSEEN, c => `\\u{${c.charCodeAt(0).toString(16)}}`);
    if (node.textContent !== text) node.textContent = text;
  }

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const known = value => value !== null && value !== undefined;
  const grouped = value => String(value).replace(/\B(?=(\d{3})+$)/g, ",");

  // Three significant digits.
  function number(value) {
    if (!known(value)) return "–";
    if (value === 0 || value >= 100) return grouped(Math.round(value));
    return value >= 10 ? value.toFixed(1) : value >= 0.01 ? value.toFixed(2) : value.toPrecision(1);
  }
  const count = value => known(value) ? grouped(value) : "–";
  const millis = value => known(value) ? number(value) + " ms" : "–";
  const percent = (part, whole) => whole ? number(100 * part / whole) + " %" : "–";

  // A duration in its two largest units.
  function span(seconds) {
    seconds = Math.max(0, Math.floor(seconds));
    const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const first = parts.findIndex(([size]) => seconds >= size);
    if (first < 0) return "0 s";
    const [size, unit] = parts[first];
    const next = parts[first + 1];
    const rest = next ? Math.floor(seconds % size / next[0]) : 0;
    return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${next[1]}` : "");
  }

  const two = value => String(value).padStart(2, "0");
  function clock(at, withSeconds = true) {
    const date = new Date(at * 1000);
    return `${two(date.getHours())}:${two(date.getMinutes())}` + (withSeconds ? `:${two(date.getSeconds())}` : "");
  }
  function day(at) {
    const date = new Date(at * 1000);
    const isToday = date.toDateString() === new Date().toDateString();
    return (isToday ? "" : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `) + clock(at);
  }
  const moment = at => typeof at === "number" ? at : Date.parse(at) / 1000;

  function putList(list, texts) {
    while (list.children.length > texts.length) list.lastChild.remove();
    texts.forEach((text, place) => put(list.children[place] ?? list.appendChild(make("li", { class: "name" })), text));
  }

  // ---- Tables: rows are reused, and only changed cells are written.

  // A column: its heading, the function that fills a cell, and the class of the cell.
  const column = (title, fill, kind = "") => ({ title, fill, kind });

  function fillTable(table, columns, rows) {
    if (table.columns !== columns) {
      table.columns = columns;
      const heads = columns.map(({ title, kind }) => make("th", { scope: "col", class: kind && "text" }, title));
      table.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody"));
    }
    const body = table.tBodies[0];
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((row, place) => {
      const line = body.rows[place] ?? body.appendChild(make("tr", {}, ...columns.map(newCell)));
      columns.forEach(({ fill }, index) => {
        const cell = line.cells[index];
        const found = fill(row, cell);
        if (found !== undefined) put(cell, found);
      });
    });
  }
  // On a narrow screen a row is a card, where each cell shows its title.
  const newCell = ({ kind, title }) => kind === "head" ? make("th", { scope: "row", class: "name" }) : make("td", { class: kind, "data-title": title });

  function mark(cell, isBad) {
    cell.classList.toggle("bad", isBad);
  }

  // ---- Data

  // Points of the last ten minutes and of the last day: {at, state, queries, transports, responses, rcodes, failures, dropped, cache,
  // pools: Map of name to figures}.
  let recent = [], long = [];
  // The last second, the last status, and the time when that status arrived.
  let last = null, status = null, statusAt = 0;
  let view = "10m", choice = "";

  function pointOfSecond(second) {
    const pools = new Map(second.pools.map(pool => [pool.name, {
      queries: pool.queries, p50: pool.p50_ms, p99: pool.p99_ms, p999: pool.p999_ms,
      sent: pool.hedges.sent, won: pool.hedges.won, denied: pool.hedges.denied, tokens: pool.hedges.tokens,
    }]));
    const { at, queries, transports, responses, rcodes, failures = 0, dropped, cache } = second;
    return { at, state: second.verdict.state, queries, transports, responses, rcodes, failures, dropped, cache, pools };
  }

  function pointsOfHistory(history) {
    const pick = (arrays, place) => Object.fromEntries(Object.entries(arrays).map(([key, values]) => [key, values[place]]));
    return history.at.map((at, place) => ({
      at,
      state: history.verdict[place],
      queries: history.queries[place],
      transports: pick(history.transports, place),
      responses: pick(history.responses, place),
      rcodes: pick(history.rcodes, place),
      failures: history.failures?.[place] ?? 0,
      dropped: pick(history.dropped, place),
      cache: history.cache && known(history.cache.hits[place]) ? pick(history.cache, place) : null,
      pools: new Map(history.pools.filter(pool => known(pool.queries[place])).map(pool => [pool.name, {
        queries: pool.queries[place], p50: pool.p50_ms[place], p99: pool.p99_ms[place], p999: pool.p999_ms[place],
        sent: pool.hedges.sent[place], won: pool.hedges.won[place], denied: pool.hedges.denied[place], tokens: pool.hedges.tokens[place],
      }])),
    }));
  }

  // Merges points by their time; of two points of one time the newer one stays.
  function merge(points, others, max) {
    const all = new Map(points.map(point => [point.at, point]));
    others.forEach(point => all.set(point.at, point));
    return [...all.values()].sort((one, other) => one.at - other.at).slice(-max);
  }

  const lastMinute = () => last ? recent.filter(point => point.at > last.at - 60) : [];

  function addUp(points, of) {
    const sums = {};
    for (const point of points) {
      for (const [key, value] of Object.entries(of(point) ?? {})) sums[key] = (sums[key] ?? 0) + value;
    }
    return sums;
  }

  // ---- Requests

  // The token stays in this variable, and goes into the header of private requests only.
  let token = "";

  async function ask(path, { isPrivate = false, body = null } = {}) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (isPrivate && token) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(path, {
      cache: "no-store", redirect: "error", signal: AbortSignal.timeout(body ? 60000 : 10000), headers,
      ...(body && { method: "POST", body: JSON.stringify(body) }),
    });
    const text = await response.text();
    let json = null;
    try { json = JSON.parse(text); } catch { /* told by the status */ }
    if (!response.ok || json === null) {
      const error = new Error(json?.error ?? `HTTP ${response.status}`);
      error.status = response.status;
      error.wantsToken = /^bearer/i.test(response.headers.get("WWW-Authenticate") ?? "");
      throw error;
    }
    return { json, octets: text.length };
  }

  // A request that repeats while the page is visible: at once when it is wanted, otherwise after its pause.
  function asking(path, least, isWanted, take) {
    let timer = 0, isAsking = false, again = false;
    async function now() {
      if (isAsking) { again = true; return; }
      if (document.hidden || !isWanted()) return;
      clearTimeout(timer);
      isAsking = true;
      let pause = least;
      try {
        const { json, octets } = await ask(path);
        pause = Math.max(least, 1000 * octets / OCTETS);
        take(json);
      } catch { /* the feed says that nothing comes */ }
      isAsking = false;
      timer = setTimeout(now, again ? 1000 : pause);
      again = false;
    }
    return now;
  }

  const askStatus = asking("api/v1/status", PAUSE, () => true, json => {
    status = json;
    statusAt = performance.now();
    showStatus();
    show();
  });
  const askDay = asking("api/v1/history?span=24h", 60000, () => view === "24h", json => {
    long = pointsOfHistory(json).slice(-MINUTES);
    showCharts();
  });

  // The last ten minutes: requested at the start, after a gap, and without the stream.
  let hasGap = true;
  const askRecent = asking("api/v1/history?span=10m", POLL, () => hasGap || feed.mode === "polling", json => {
    hasGap = false;
    recent = merge(recent, pointsOfHistory(json), SECONDS);
    show();
  });

  // ---- The feed: the stream, or a request every four seconds

  const feed = { source: null, id: "", mode: "waiting", heard: 0, timer: 0, round: 0, why: "" };

  function take(second) {
    const isNext = last && second.at === last.at + 1;
    const changed = !last || marksOf(second) !== marksOf(last);
    // The clock of the server was set back.
    if (last && second.at < last.at) recent = recent.filter(point => point.at < second.at);
    // A server that makes no new samples repeats its last second.
    if (!last || second.at !== last.at) feed.heard = performance.now();
    last = second;
    if (isNext) {
      recent.push(pointOfSecond(second));
      if (recent.length > SECONDS) recent.splice(0, recent.length - SECONDS);
    } else {
      recent = merge(recent, [pointOfSecond(second)], SECONDS);
      hasGap = true;
      askRecent();
    }
    if (changed) askStatus();
    show();
  }
  // Values whose change makes the page request the status.
  const marksOf = second => JSON.stringify([
    second.verdict.reasons.map(reason => reason.code),
    second.pools.map(pool => [pool.name, pool.backends.map(backend => backend.name + " " + backend.state).sort()]),
  ]);

  // Tabs of one browser share its connections to this host. A tab that wants a stream asks the other tabs for theirs.
  const me = Math.random();
  const tabs = "BroadcastChannel" in window ? new BroadcastChannel("hedgerow-streams") : null;
  let isWanting = false, others = 0;
  if (tabs) {
    tabs.onmessage = ({ data }) => {
      if (data.ask !== undefined && (feed.source || (isWanting && me < data.ask))) tabs.postMessage({ to: data.ask });
      else if (data.to === me) others += 1;
    };
  }

  function open() {
    if (document.hidden || feed.source || isWanting) return;
    isWanting = true;
    others = 0;
    tabs?.postMessage({ ask: me });
    setTimeout(() => {
      isWanting = false;
      if (document.hidden) return;
      if (others >= MAX_STREAMS) poll("other tabs of this browser have the streams that it can hold");
      else listen();
    }, tabs ? HEARSAY : 0);
  }

  function listen() {
    close();
    feed.mode = "waiting";
    const source = new EventSource("api/v1/live" + (feed.id && `?last_event_id=${encodeURIComponent(feed.id)}`));
    feed.source = source;
    // An EventSource without a free connection fires no event.
    feed.timer = setTimeout(() => poll("the event stream does not open"), OLD);
    source.onopen = () => clearTimeout(feed.timer);
    source.addEventListener("second", event => {
      clearTimeout(feed.timer);
      feed.id = event.lastEventId;
      feed.mode = "live";
      take(JSON.parse(event.data));
    });
    source.onerror = () => {
      if (feed.source !== source) return;
      if (source.readyState === EventSource.CLOSED) poll("the event stream is refused");
      else if (feed.mode === "live") retry(1000);
    };
  }

  // A restarting server is back sooner than the browser would retry.
  function retry(pause) {
    close();
    feed.mode = "waiting";
    feed.timer = setTimeout(open, pause);
  }

  function poll(why) {
    close();
    feed.mode = "polling";
    feed.why = why;
    const until = performance.now() + RETRY;
    const round = feed.round;
    let wasAway = false;
    const once = async () => {
      let isThere = true;
      try {
        take((await ask("api/v1/live?once")).json);
      } catch {
        // The page shows the age of the data.
        isThere = false;
      }
      if (feed.round !== round) return;
      // A server that is back may offer the stream again.
      if (performance.now() > until || (wasAway && isThere)) open();
      wasAway = !isThere;
      feed.timer = setTimeout(once, isThere ? POLL : 1000);
    };
    showFeed();
    once();
  }

  function close() {
    feed.round += 1;
    clearTimeout(feed.timer);
    feed.source?.close();
    feed.source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      open();
      askStatus();
      askDay();
    }
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);

  // ---- Display

  // Several seconds that arrive at once are drawn once.
  let isDue = false;
  function show() {
    if (isDue || !last || document.hidden) return;
    isDue = true;
    requestAnimationFrame(showAll);
  }

  function showAll() {
    isDue = false;
    showFeed();
    showVerdict();
    showTiles();
    showBackends();
    showPools();
    showAnswers();
    showCharts();
  }

  function showFeed() {
    const age = (performance.now() - feed.heard) / 1000;
    const isOld = feed.heard > 0 && age > OLD / 1000;
    $("verdict").classList.toggle("old", isOld);
    const [state, text] = isOld ? ["late", `data is ${span(age)} old: the server sends nothing new`]
      : !last ? ["waiting", "connecting"]
      : feed.mode === "polling" ? ["polling", `asking each ${POLL / 1000} s: ${feed.why}`]
      : feed.mode === "waiting" ? ["waiting", "connecting again"]
      : ["live", "live"];
    $("feed").dataset.state = state;
    put($("feed"), text);
  }

  const WORDS = { well: "OK", watch: "Watch", trouble: "Trouble" };

  function showVerdict() {
    const { state, since, reasons } = last.verdict;
    if ($("verdict").dataset.state !== state) $("verdict").dataset.state = state;
    put($("verdict-word"), WORDS[state] ?? state);
    const title = `${WORDS[state] ?? state} · hedgerow`;
    if (document.title !== title) document.title = title;
    putList($("reasons"), reasons.map(reason => reason.text));
    put($("verdict-since"), since ? `since ${day(since)}, for ${span(last.at - since)}` : "");
  }

  const tiles = new Map();
  function tile(title, value, isBad = false) {
    let node = tiles.get(title);
    if (!node) {
      node = make("dd");
      tiles.set(title, node);
      $("tiles").append(make("div", {}, make("dt", {}, title), node));
    }
    put(node, value);
    mark(node, isBad);
  }

  // The largest value of all pools.
  function worst(values) {
    const found = values.filter(known);
    return found.length ? Math.max(...found) : null;
  }

  // The median of the pool that the median query of the last minute has asked, in order of the pools' medians.
  function typicalMedian() {
    const minutes = (status?.pools ?? []).map(pool => pool.last_minute).filter(minute => known(minute?.p50_ms));
    minutes.sort((one, other) => one.p50_ms - other.p50_ms);
    let left = minutes.reduce((all, { queries }) => all + queries, 0) / 2;
    return minutes.find(({ queries }) => (left -= queries) <= 0)?.p50_ms;
  }

  // A lower bound of the responses that are synthesized or report a failure: one response may be both.
  const bad = ({ responses, failures }) => Math.max((responses.synthesized ?? 0) + (responses.error ?? 0), failures);

  function showTiles() {
    const now = recent.filter(point => point.at > last.at - 10);
    const minute = lastMinute();
    const answers = addUp(minute, point => point.responses);
    const all = Object.values(answers).reduce((sum, value) => sum + value, 0);
    const queries = minute.reduce((sum, point) => sum + point.queries, 0);
    const hedges = addUp(minute.flatMap(point => [...point.pools.values()]), ({ sent }) => ({ sent }));
    const made = minute.reduce((sum, point) => sum + bad(point), 0);
    const of = key => worst((status?.pools ?? []).map(pool => pool.last_minute?.[key]));
    tile("Queries a second", now.length ? number(now.reduce((sum, point) => sum + point.queries, 0) / now.length) : "–");
    tile("p50", millis(typicalMedian()));
    tile("p99", millis(of("p99_ms")));
    tile("p99.9", millis(of("p999_ms")));
    tile("From the cache", percent((answers.cache ?? 0) + (answers.stale ?? 0), all));
    tile("Hedges", percent(hedges.sent ?? 0, queries));
    tile("Made up or failed", percent(made, all));
  }

  // A lower rank is worse.
  const RANKS = { down: 0, flapping: 1, behind: 2, new: 3, draining: 4, up: 5 };
  const rank = state => RANKS[state] ?? 0;

  // A backend that changes between up and down often looks worse than its state.
  const look = ({ state, isFlapping }) => isFlapping && state !== "down" ? "flapping" : state;

  function stateCell(row, cell) {
    if (!cell.firstChild) cell.append(make("span", { class: "state" }, make("span", { class: "shape", "aria-hidden": "true" }), document.createElement("span")));
    const span = cell.firstChild;
    if (span.dataset.state !== look(row)) span.dataset.state = look(row);
    put(span.lastChild, row.state + (row.isFlapping ? ", flapping" : "") + (row.byHand ? " (by hand)" : ""));
  }

  const alarm = of => (row, cell) => {
    const value = of(row);
    mark(cell, value > 0);
    return count(value);
  };

  const BACKENDS = [
    column("State", stateCell, "text"),
    column("Backend", row => row.name, "head"),
    column("Pool", row => row.pool, "name"),
    column("Since", row => row.since),
    column("p99", row => millis(row.p99)),
    column("Errors", alarm(row => row.errors)),
    column("Timeouts", alarm(row => row.timeouts)),
    column("p50", row => millis(row.p50)),
    column("Share", row => row.share),
    column("In flight", row => count(row.inFlight)),
    column("Hedges won", row => count(row.hedgesWon)),
  ];

  function showBackends() {
    const age = (performance.now() - statusAt) / 1000;
    const rows = [];
    let others = 0, isCut = false;
    const statusPools = new Map((status?.pools ?? []).map(pool => [pool.name, pool]));
    for (const pool of last.pools) {
      others += pool.more_backends;
      const told = statusPools.get(pool.name)?.backends ?? [];
      const attempts = told.reduce((sum, backend) => sum + (backend.last_minute?.attempts ?? 0), 0);
      const of = new Map(told.map(backend => [backend.name, backend]));
      for (const backend of pool.backends) {
        // The server keeps minutes for only some backends of a large pool; the others show the last second.
        const more = of.get(backend.name), minute = more && (more.last_minute ?? backend);
        isCut ||= more?.last_minute === null;
        rows.push({
          pool: pool.name, name: backend.name, state: backend.state, isFlapping: backend.flapping, inFlight: backend.in_flight,
          byHand: more?.by_hand && more.state === backend.state,
          since: !more ? "–" : more.state === backend.state ? span(more.since_seconds + age) : "now",
          p50: minute?.p50_ms, p99: minute?.p99_ms, errors: minute?.errors, timeouts: minute?.timeouts,
          share: minute ? percent(minute.attempts, minute === backend ? pool.attempts : attempts) : "–", hedgesWon: minute?.hedges_won,
        });
      }
    }
    const failures = row => (row.errors ?? 0) + (row.timeouts ?? 0);
    rows.sort((one, other) => rank(look(one)) - rank(look(other)) || failures(other) - failures(one)
      || (other.p99 ?? -1) - (one.p99 ?? -1) || one.pool.localeCompare(other.pool) || one.name.localeCompare(other.name));
    others += Math.max(0, rows.length - MAX_ROWS);
    fillTable($("backends"), BACKENDS, rows.slice(0, MAX_ROWS));
    put($("more-backends"), others ? `and ${count(others)} more that do better` : "");
    put($("minute-at"), (status ? ` to ${clock(last.at - age)}` : "") + (isCut ? ", or of the last second in pools too large for that" : ""));
  }

  const POOLS = [
    column("Pool", row => row.name, "head"),
    column("Up", (row, cell) => {
      mark(cell, row.up < row.all);
      return `${count(row.up)} of ${count(row.all)}` + (row.up === 1 && row.all > 1 ? ", none to hedge to" : "");
    }),
    column("Queries/s", row => known(row.minute) ? number(row.minute.queries / 60) : "–"),
    column("p50", row => millis(row.minute?.p50_ms)),
    column("p99", row => millis(row.minute?.p99_ms)),
    column("p99.9", row => millis(row.minute?.p999_ms)),
    column("In flight", row => count(row.inFlight)),
    column("Hedges sent", row => count(row.hedges.sent)),
    column("won", row => count(row.hedges.won)),
    column("denied", alarm(row => row.hedges.denied)),
    column("Budget left", row => count(row.tokens)),
  ];

  function showPools() {
    const minute = lastMinute();
    const told = new Map((status?.pools ?? []).map(pool => [pool.name, pool]));
    fillTable($("pools"), POOLS, last.pools.slice(0, MAX_ROWS).map(pool => {
      const sick = pool.backends.filter(backend => backend.state !== "up").length;
      const all = pool.backends.length + pool.more_backends;
      const isCut = pool.more_backends > 0 && sick === pool.backends.length;
      const up = isCut ? (told.get(pool.name)?.backends ?? []).filter(backend => backend.state === "up").length : all - sick;
      return {
        name: pool.name, up, all, inFlight: pool.in_flight, tokens: pool.hedges.tokens,
        minute: told.get(pool.name)?.last_minute,
        hedges: addUp(minute.map(point => point.pools.get(pool.name)), figures => figures && { sent: figures.sent, won: figures.won, denied: figures.denied }),
      };
    }));
    const names = ["", ...last.pools.map(pool => pool.name)];
    const select = $("pool");
    if (names.length > 2 && select.names !== names.join("\n")) {
      select.names = names.join("\n");
      select.replaceChildren(...names.map(name => make("option", { value: name }, name || "the slowest of all")));
      if (!names.includes(choice)) choice = "";
      select.value = choice;
    }
    $("pool-choice").hidden = names.length <= 2;
  }

  const SOURCES = {
    backend: "a backend", cache: "the cache", stale: "the cache, stale", synthesized: "made up here", authority: "a zone here", rule: "a rule", error: "an error",
  };
  const SHARES = [
    column("Source", row => row.name, "head"),
    column("Last minute", row => count(row.count)),
    column("Share", (row, cell) => {
      if (!cell.firstChild) cell.append(document.createElement("span"), make("span", { class: "gauge" }, document.createElement("span")));
      put(cell.firstChild, percent(row.count, row.all));
      cell.lastChild.firstChild.style.width = row.all ? `${100 * row.count / row.all}%` : "0";
    }),
  ];
  const LOOKUPS = [column("Look-ups", row => row.name, "head"), SHARES[1], SHARES[2]];
  const DROPS = [column("Reason", row => row.name, "head"), SHARES[1]];

  function shares(sums, words) {
    const all = Object.values(sums).reduce((sum, value) => sum + value, 0);
    return Object.entries(sums).map(([key, count]) => ({ name: words[key] ?? key, count, all })).sort((one, other) => other.count - one.count);
  }

  function showAnswers() {
    const minute = lastMinute();
    fillTable($("answers"), SHARES, shares(addUp(minute, point => point.responses), SOURCES));
    // Late replies of hedges are expected, so they are no loss.
    const { late = 0, ...lost } = addUp(minute, point => point.dropped);
    $("late").hidden = !late;
    put($("late"), `${grouped(late)} late replies: each came after its client had an answer, as from a hedge.`);
    $("cache-part").hidden = !last.cache;
    if (last.cache) {
      fillTable($("cache"), LOOKUPS, shares(addUp(minute, point => point.cache), { hits: "hits", stale_hits: "stale hits (a backend is asked too)", misses: "misses" }));
    }
    const drops = shares(lost, {}).filter(row => row.count > 0);
    $("dropped-part").hidden = !drops.length;
    fillTable($("dropped"), DROPS, drops.slice(0, MAX_ROWS));
  }

  // ---- Status: data that changes seldom

  const ZONES = [
    column("State", stateCell, "text"),
    column("Zone", row => row.name, "head"),
    column("Authority", row => row.authority, "name"),
    column("Serial", row => row.serial ?? "–"),
  ];
  const MEMBERS = [
    column("State", stateCell, "text"),
    column("Pool", row => row.pool, "head"),
    column("Source", row => row.kind, "name"),
    column("Members", row => count(row.members)),
    column("Age", row => known(row.age_seconds) ? span(row.age_seconds) : "–"),
    column("Refused", row => (row.refused ?? []).map(({ entry, reason }) => `${entry}: ${reason}`).join("\n"), "name long"),
  ];

  function showStatus() {
    const failed = status.reload && !status.reload.ok ? status.reload : null;
    $("reload").hidden = !failed;
    if (failed) {
      put($("reload-when"), `At ${day(moment(failed.at))}. Edition ${status.edition} of the config stays active.`);
      put($("reload-error"), failed.error ?? "");
    }
    const zones = status.zones ?? [];
    $("zones-part").hidden = !zones.length;
    fillTable($("zones"), ZONES, zones.slice(0, MAX_ROWS));
    const moreZones = (status.more_zones ?? 0) + Math.max(0, zones.length - MAX_ROWS);
    put($("more-zones"), moreZones ? `and ${count(moreZones)} more` : "");
    const sources = status.pools.flatMap(pool => (pool.sources ?? []).map(source => ({ pool: pool.name, ...source })));
    $("sources-part").hidden = !sources.length;
    fillTable($("sources"), MEMBERS, sources.slice(0, MAX_ROWS));
    const problems = (status.processes ?? []).filter(process => process.problem);
    const parts = [
      `hedgerow ${status.version}`, `up ${span(status.uptime_seconds)}`, `${count(status.workers)} workers`,
      `edition ${status.edition} of the config`,
      ...problems.map(process => `process ${process.pid} (${process.role}): ${process.problem}`),
    ];
    put($("server"), parts.join(" · "));
  }

  // ---- Charts

  // The current value of a color of the style sheet.
  const probe = document.body.appendChild(make("span", { hidden: "" }));
  function color(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  const LINES = [
    { color: "one", dash: [] }, { color: "two", dash: [6, 4] }, { color: "three", dash: [2, 3] }, { color: "four", dash: [10, 3, 2, 3] },
  ];

  // The figures of the chosen pool, or of all pools: the slowest of each moment, or the sum.
  const inPools = (point, of, join) => join((choice ? [point.pools.get(choice)] : [...point.pools.values()]).filter(known).map(of));
  const slowest = key => point => inPools(point, figures => figures[key], worst);
  const sum = key => (point, step) => inPools(point, figures => figures[key], values => values.length ? values.reduce((a, b) => a + b, 0) / step : null);
  const counted = (group, ...keys) => (point, step) => choice ? null : keys.reduce((all, key) => all + (point[group][key] ?? 0), 0) / step;

  const charts = [
    {
      title: "Queries a second", unit: number, isLog: false,
      series: [
        ["queries", (point, step) => choice ? sum("queries")(point, step) : point.queries / step],
        ["from the cache", counted("responses", "cache", "stale")],
        ["made up or failed", (point, step) => choice ? null : bad(point) / step],
      ],
    },
    { title: "Time to answer, ms", unit: number, isLog: true, series: [["p50", slowest("p50")], ["p99", slowest("p99")], ["p99.9", slowest("p999")]] },
    { title: "Hedges a second", unit: number, isLog: false, series: [["sent", sum("sent")], ["won", sum("won")], ["denied", sum("denied")]] },
    {
      title: "Response codes a second", unit: number, isLog: false,
      series: [
        ["NOERROR", counted("rcodes", "NOERROR")], ["NXDOMAIN", counted("rcodes", "NXDOMAIN")],
        ["SERVFAIL", counted("rcodes", "SERVFAIL")], ["others", counted("rcodes", "REFUSED", "other")],
      ],
    },
    {
      title: "Transports, queries a second", unit: number, isLog: false,
      series: [
        ["UDP", counted("transports", "udp")], ["TCP", counted("transports", "tcp", "http")],
        ["encrypted", counted("transports", "tls", "https", "quic")],
      ],
    },
  ].map(makeChart);

  function makeChart(spec) {
    const id = "chart-" + spec.title.split(" ")[0].toLowerCase();
    const values = spec.series.map(() => make("b"));
    const legend = make("ul", { class: "legend" }, ...spec.series.map(([name], place) =>
      make("li", {}, make("span", { class: `line ${LINES[place].color}`, "aria-hidden": "true" }), name + " ", values[place])));
    const plot = make("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": `${spec.title}: a moment`, "aria-orientation": "horizontal",
      "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0", "aria-valuetext": "no data yet",
    });
    const when = make("span", { class: "soft" });
    const table = make("table");
    const details = make("details", {}, make("summary", {}, "The same as a table"),
      make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": `${spec.title}, as a table` }, table));
    $("charts").append(make("div", { class: "chart" }, make("h3", { id }, spec.title), legend, plot, when, details));
    const columns = [column("Time", row => row.time, "head"), ...spec.series.map(([name], place) => column(name, row => spec.unit(row.values[place]))),
      column("Verdict", row => WORDS[row.state] ?? "–", "text")];
    return { ...spec, plot, values, when, details, table, columns, uplot: null, data: null, states: [], chosen: null };
  }

  function newPlot(chart) {
    const ink = () => color("soft"), grid = { stroke: () => color("grid"), width: 1 };
    const axis = { stroke: ink, grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const range = (plot, min, max) => !known(min) || !known(max) ? (chart.isLog ? [0.1, 10] : [0, 1])
      : chart.isLog ? uPlot.rangeLog(min, max, 10, true) : [0, Math.max(max * 1.1, 1)];
    const options = {
      width: Math.max(chart.plot.clientWidth, 100), height: Math.max(chart.plot.clientHeight, 100),
      legend: { show: false },
      cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: true }, y: chart.isLog ? { distr: 3, range } : { range } },
      axes: [
        { ...axis, space: 60, values: (plot, ticks) => ticks.map(at => clock(at, ticks.length > 1 && ticks[1] - ticks[0] < 60)) },
        { ...axis, size: 52, values: (plot, ticks) => ticks.map(tick => known(tick) ? grouped(tick) : "") },
      ],
      series: [{}, ...chart.series.map(([label], place) => ({
        label, stroke: () => color(LINES[place].color), dash: LINES[place].dash, width: 2, points: { show: false }, spanGaps: false,
      }))],
      hooks: { draw: [plot => drawVerdicts(chart, plot)], setCursor: [plot => { if (known(plot.cursor.idx)) { chart.chosen = null; readOut(chart, plot.cursor.idx); } else readOut(chart, null); }] },
    };
    const plot = new uPlot(options, chart.data, chart.plot);
    plot.over.addEventListener("click", event => pick(chart, plot.posToIdx(event.offsetX)));
    return plot;
  }

  // A strip at the top for moments with a problem, in pixels: the worse the problem, the higher.
  const HEIGHTS = { watch: 4, trouble: 9 };
  function drawVerdicts(chart, { ctx, bbox, valToPos }) {
    const at = chart.data[0];
    const colors = { watch: color("watch"), trouble: color("trouble") };
    ctx.save();
    chart.states.forEach((state, place) => {
      if (!(state in HEIGHTS)) return;
      const right = valToPos(at[place], "x", true);
      const left = Math.max(bbox.left, valToPos(at[place] - stepOf(), "x", true));
      ctx.fillStyle = colors[state];
      ctx.fillRect(left, bbox.top, right - left + 1, HEIGHTS[state] * devicePixelRatio);
    });
    ctx.restore();
  }

  // The values of a moment of the chart, by default the last one.
  function readOut(chart, place) {
    const at = chart.data[0];
    const shown = known(place) ? place : at.length - 1;
    chart.values.forEach((node, line) => put(node, at.length ? chart.unit(chart.data[line + 1][shown]) : ""));
    put(chart.when, known(place) && at.length ? `at ${day(at[shown])}` : "");
  }

  function pick(chart, place) {
    const at = chart.data[0][place];
    if (known(at)) askSlow(at);
  }

  // Keyboard: arrows choose a moment, Enter requests its slow races.
  function onKey(chart, event) {
    const at = chart.data?.[0];
    if (!at?.length) return;
    const before = chart.chosen ? at.findIndex(other => other >= chart.chosen) : -1;
    const place = before < 0 ? at.length - 1 : before;
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -30, PageUp: 30, Home: -at.length, End: at.length }[event.key];
    if (event.key === "Enter" || event.key === " ") pick(chart, place);
    else if (step === undefined) return;
    else {
      chart.chosen = at[Math.min(at.length - 1, Math.max(0, place + step))];
      showChosen(chart);
    }
    event.preventDefault();
  }

  function showChosen(chart) {
    const at = chart.data[0];
    const found = chart.chosen ? at.findIndex(other => other >= chart.chosen) : -1;
    const place = found < 0 ? at.length - 1 : found;
    const said = chart.series.map(([name], line) => `${name} ${chart.unit(chart.data[line + 1][place])}`);
    const set = (name, value) => { if (chart.plot.getAttribute(name) !== String(value)) chart.plot.setAttribute(name, value); };
    set("aria-valuemin", at[0] ?? 0);
    set("aria-valuemax", at[at.length - 1] ?? 0);
    set("aria-valuenow", at[place] ?? 0);
    set("aria-valuetext", at.length ? `${clock(at[place])}: ${said.join(", ")}` : "no data yet");
    if (chart.chosen && chart.uplot) {
      readOut(chart, place);
      chart.uplot.setCursor({ left: chart.uplot.valToPos(at[place], "x"), top: -10 }, false);
    }
  }

  const stepOf = () => view === "10m" ? 1 : 60;

  function showCharts() {
    const step = stepOf();
    const points = view === "10m" ? recent : long;
    // Moments without data are gaps in the line.
    const all = [];
    points.forEach((point, place) => {
      const before = points[place - 1];
      if (before && point.at - before.at > 1.5 * step) all.push({ at: before.at + step, isGap: true });
      all.push(point);
    });
    for (const chart of charts) {
      const lines = chart.series.map(([, of]) => all.map(point => {
        const value = point.isGap ? null : of(point, step);
        // The logarithm of zero does not exist.
        return chart.isLog && value !== null ? Math.max(value, 0.001) : value;
      }));
      chart.data = [all.map(point => point.at), ...lines];
      chart.states = all.map(point => point.state);
      if (!all.length) continue;
      if (!chart.uplot) chart.uplot = newPlot(chart);
      else chart.uplot.setData(chart.data);
      readOut(chart, chart.uplot.cursor.idx ?? null);
      showChosen(chart);
      showTable(chart, step);
    }
  }

  function showTable(chart, step) {
    if (!chart.details.open) return;
    const at = chart.data[0];
    const rows = at.map((time, place) => ({ time: step === 1 ? clock(time) : day(time), state: chart.states[place], values: chart.data.slice(1).map(line => line[place]) }));
    fillTable(chart.table, chart.columns, rows.reverse());
  }

  for (const chart of charts) {
    chart.plot.addEventListener("keydown", event => onKey(chart, event));
    chart.plot.addEventListener("blur", () => { chart.chosen = null; });
    chart.details.addEventListener("toggle", () => {
      if (chart.details.open) showCharts();
      else chart.table.tBodies[0]?.replaceChildren();
    });
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = chart.plot;
      if (chart.uplot && width > 0 && (width !== chart.uplot.width || height !== chart.uplot.height)) chart.uplot.setSize({ width, height });
    }).observe(chart.plot);
  }

  function setView(wanted) {
    view = wanted;
    $("span-10m").setAttribute("aria-pressed", view === "10m");
    $("span-24h").setAttribute("aria-pressed", view === "24h");
    charts.forEach(chart => { chart.chosen = null; });
    askDay();
    showCharts();
  }
  $("span-10m").addEventListener("click", () => setView("10m"));
  $("span-24h").addEventListener("click", () => setView("24h"));
  $("pool").addEventListener("change", () => {
    choice = $("pool").value;
    showCharts();
  });

  // ---- On demand: slow races, names, explanations

  // A cell whose button explains the name of its row.
  const explaining = text => (row, cell) => {
    if (!cell.firstChild) {
      cell.append(make("button", { type: "button", class: "name", title: "Explain" }));
      cell.firstChild.addEventListener("click", () => {
        $("explain-name").value = cell.row.name;
        $("explain-type").value = cell.row.type;
        $("explain-title").focus();
        explain();
      });
    }
    cell.row = row;
    put(cell.firstChild, text(row));
  };

  const RACES = [
    column("At", row => day(moment(row.at)), "head"),
    column("Took", row => millis(row.took_ms)),
    column("Pool", row => row.pool, "name"),
    column("Name", explaining(row => `${row.name} ${row.type}`), "name long"),
    column("Outcome", row => [row.outcome, row.rcode].filter(known).join(", "), "text long"),
    column("Why", (row, cell) => {
      if (!cell.firstChild) cell.append(document.createElement("span"), document.createElement("ul"));
      put(cell.firstChild, row.why ?? "");
      cell.lastChild.replaceChildren(...(row.attempts ?? []).map(attempt => {
        const item = make("li");
        put(item, attemptText(attempt));
        return item;
      }));
    }, "why"),
  ];
  const attemptText = ({ backend, kind, at_ms, took_ms, fate }) =>
    `${backend}: ${kind} after ${millis(at_ms)}, ${fate}` + (known(took_ms) ? ` in ${millis(took_ms)}` : "");

  // Sends a private request. If the server wants its token, the field for it appears below the note.
  async function askPrivate(path, note, way, fill, body = null) {
    const sent = token, again = () => askPrivate(path, note, way, fill, body);
    put(note, "asking");
    try {
      fill((await ask(path, { isPrivate: true, body })).json);
    } catch (error) {
      if (error.status !== 403) return put(note, `It cannot be told: ${error.message}`);
      // The token was typed meanwhile.
      if (token && token !== sent) return again();
      const remedy = error.wantsToken ? `${sent ? "This is not the token of the server" : "This needs the token of the server"}. Type it here, or run ${way} on the server's host.`
        : body ? `Run ${way} on the server's host. A server with a token takes it here.`
        : `Names are private: run ${way} on the server's host. A server without a token shows them here, too, on its own host: forward the port, as with ssh -L.`;
      put(note, `${remedy} (${error.message})`);
      if (!error.wantsToken) return;
      setToken("");
      note.after($("token-part"));
      $("token-label").append(tokenField);
      $("token-part").hidden = false;
      tokenField.focus();
      waiting.set(note, again);
    }
  }

  // The requests that wait for the token, by their notes, and its field, which is part of the page only after it is needed.
  const waiting = new Map();
  const tokenField = make("input", { type: "password", autocomplete: "off", id: "token" });
  function setToken(text) {
    token = text;
    tokenField.value = "";
    $("token-label").hidden = $("token-use").hidden = Boolean(token);
    $("token-forget").hidden = !token;
  }
  function useToken() {
    const text = tokenField.value.trim();
    // Errors of fetch may quote a header that it cannot send.
    if (!/^[!-~]+$/.test(text)) return put($("token-part").previousElementSibling, "A token has ASCII letters, digits and signs, and no blanks.");
    setToken(text);
    const all = [...waiting.values()];
    waiting.clear();
    all.forEach(again => again());
  }
  $("token-use").addEventListener("click", useToken);
  $("token-forget").addEventListener("click", () => {
    setToken("");
    $("token-part").hidden = true;
  });
  const onEnter = (node, act) => node.addEventListener("keydown", event => { if (event.key === "Enter") act(); });
  onEnter(tokenField, useToken);

  function showList(table, columns, rows) {
    fillTable(table, columns, rows);
    table.parentNode.hidden = !rows.length;
  }

  function askSlow(at) {
    if (!last) return;
    // A moment of the chart and its neighborhood.
    const reach = view === "10m" ? 5 : 60;
    const [from, to] = at ? [at - reach, at + reach] : [last.at - SECONDS, Infinity];
    const since = Math.ceil(last.at + (performance.now() - feed.heard) / 1000 - from) + 5;
    const title = at ? `Slow races from ${day(from)} to ${clock(to)}` : "Slow races of the last 10 minutes";
    const pool = choice ? `&pool=${encodeURIComponent(choice)}` : "";
    showList($("slow-table"), RACES, []);
    put($("slow-title"), title);
    askPrivate(`api/v1/slow?since=${since}s&limit=1000${pool}`, $("slow-note"), "hedgerow ctl slow", ({ races }) => {
      const found = races.filter(race => moment(race.at) >= from && moment(race.at) <= to);
      showList($("slow-table"), RACES, found.slice(0, MAX_RACES));
      put($("slow-note"), !found.length ? "There was none."
        : found.length > MAX_RACES ? `${count(MAX_RACES)} of ${count(found.length)}, the newest` : `${count(found.length)} in all`);
    });
    if (at) $("slow-title").focus();
  }
  $("slow-all").addEventListener("click", () => askSlow(0));

  const NAMES = [
    column("Name", explaining(row => row.name), "head"),
    column("Type", row => row.type, "name"),
    column("Queries", row => count(row.count)),
    SHARES[2],
    column("Error, at most", row => count(row.error)),
  ];
  const CLIENTS = [column("Client", row => row.client, "head"), ...NAMES.slice(2)];
  function showNames({ names = [], servfail = [], clients = [] }) {
    const all = recent.reduce((sum, point) => sum + point.queries, 0);
    const rows = list => list.slice(0, MAX_ROWS).map(row => ({ ...row, count: row.queries, all }));
    showList($("names"), NAMES, rows(names));
    $("servfail-title").hidden = !servfail.length;
    showList($("servfail"), NAMES, rows(servfail));
    $("clients-part").hidden = !clients.length;
    fillTable($("clients"), CLIENTS, rows(clients));
  }
  function askNames() {
    showNames({});
    askPrivate("api/v1/names", $("names-note"), "hedgerow ctl names", json => {
      put($("names-note"), json.names.length ? "" : "None was asked for.");
      showNames(json);
    });
  }
  $("names-show").addEventListener("click", askNames);

  const CANDIDATES = [
    column("#", row => row.place ?? "–"),
    column("Backend", row => row.backend, "head"),
    column("State", stateCell, "text"),
    column("p50", row => millis(row.p50_ms)),
    column("p99", row => millis(row.p99_ms)),
    column("In flight", row => count(row.in_flight)),
    column("Why here", row => row.why, "why"),
  ];
  // Plan, cause and response, in the order of hedgerow ctl explain.
  function explanationLines({ pool, route, rule, worker, cache, balance, dispatch, hedge_delay_ms: delay, hedge_delay_from: from, tokens, attempts, why, response }) {
    const lines = [];
    if (rule) lines.push(`Rule ${rule}`);
    if (route) {
      lines.push(`Pool ${pool} by ${route === "rule" ? "the rule" : `route ${route}`}, worker ${worker}`);
      const left = cache.state === "stale" ? cache.stale_seconds : cache.ttl_seconds;
      lines.push(`Cache: ${cache.state}` + (known(left) ? `, for ${count(left)} s more` : ""));
      lines.push(`Order: ${balance}. Asking: ${dispatch}` + (known(delay) ? `, a hedge after ${millis(delay)}: ${from}; budget for ${count(tokens)} more` : ""));
    } else if (!rule) lines.push("No route");
    lines.push(...attempts.map(attemptText), `Why: ${why}`);
    if (response) lines.push(`Response: ${response.rcode} from ${SOURCES[response.source] ?? response.source} after ${millis(response.took_ms)}`, ...response.records);
    return lines;
  }
  function showExplanation(explained) {
    put($("explain-note"), "");
    putList($("explain-lines"), explained ? explanationLines(explained) : []);
    showList($("candidates"), CANDIDATES, explained?.candidates ?? []);
  }
  function explain() {
    showExplanation(null);
    const body = { name: $("explain-name").value, type: $("explain-type").value };
    askPrivate("api/v1/explain", $("explain-note"), "hedgerow ctl explain", showExplanation, body);
  }
  $("explain-run").addEventListener("click", explain);
  onEnter($("explain-name"), explain);
  onEnter($("explain-type"), explain);

  // ---- Light and dark

  const THEMES = ["system", "light", "dark"];
  function setTheme(theme) {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    put($("theme"), `Theme: ${theme}`);
    charts.forEach(chart => chart.uplot?.redraw());
  }
  function kept() {
    try {
      const theme = localStorage.getItem("hedgerow-theme");
      return THEMES.includes(theme) ? theme : "system";
    } catch { return "system"; }
  }
  let theme = kept();
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try { localStorage.setItem("hedgerow-theme", theme); } catch { /* for this time only */ }
    setTheme(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme));
  setTheme(theme);

  put($("host"), location.host);
  setInterval(() => {
    if (!document.hidden && feed.heard) showFeed();
  }, 1000);
  // The first data does not wait for the stream.
  ask("api/v1/live?once").then(({ json }) => { if (!last) take(json); }, () => { /* the stream may do better */ });
  open();
})();
