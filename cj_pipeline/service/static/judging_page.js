"use strict";
// What is shown comes from /judge/desk; a pair is assigned there before it is shown, so that
// reloading and second tabs show the same one. Texts are set as text, never as markup.
const $ = (id) => document.getElementById(id);
const IDLE_S = 60;
let desk = null, pair = null, choice = null, changing = false, sending = false;
let shownId = null, opened = new Set(), shownAt = 0, activeS = 0, lastTick = 0, lastInput = 0;

async function call(path, body) {
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST", credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  const found = await answer.json();
  if (!answer.ok) { const error = new Error(found.detail || "That did not work."); error.status = answer.status; throw error; }
  return found;
}

function notice(text, calm = false) {
  $("notice").textContent = text; $("notice").hidden = !text; $("notice").classList.toggle("calm", calm);
}

async function start() {
  const token = location.hash.slice(1);
  try {
    if (token) {
      await call("/judge/session", { token });
      history.replaceState(null, "", "/judge");
    }
    take(await call("/judge/desk"));
  } catch (error) {
    for (const id of ["bar", "pair", "welcome"]) $(id).hidden = true;
    notice(error.message);
    return;
  }
  let met = false;
  try { met = sessionStorage.getItem("begun") === "yes"; } catch { /* without storage it is shown again */ }
  if (met || !pair) show(); else { $("welcome").hidden = false; $("begin").focus(); }
}

function take(found) {
  desk = { ...desk, ...found };
  pair = desk.pair; changing = false;
  for (const box of document.querySelectorAll(".words"))
    box.textContent = [desk.instructions, desk.rubric].filter(Boolean).join("\n\n") || "Which text is better?";
  progress();
}

function progress() {
  const minutes = Math.max(1, Math.round(desk.n_left * desk.seconds_per_verdict / 60));
  $("progress").textContent = `${desk.n_done} judged, ${desk.n_left} left` + (desk.n_left ? `, about ${minutes} min` : "");
}

function show() {
  $("welcome").hidden = true;
  const has = Boolean(pair);
  $("pair").hidden = $("bar").hidden = !has;
  $("closing").hidden = has;
  document.body.classList.toggle("judging", has);
  $("back-from-end").hidden = !desk.may_go_back;
  if (!has) { shownId = null; $("why").textContent = desk.why_nothing || "Nothing is left."; $("closing-title").focus(); return; }
  for (const side of ["first", "second"]) {
    $(`text-${side}`).textContent = pair[side];
    $(`text-${side}`).lang = desk.language || "";
    $(`pane-${side}`).scrollTop = 0;
  }
  shownId = pair.id;
  $("tie").hidden = !desk.allow_ties;
  $("back").disabled = changing || sending || !desk.may_go_back;
  $("comment").value = draft() || "";
  opened = new Set(); shownAt = lastTick = lastInput = Date.now(); activeS = 0;
  choose(null); tab("first");
  if (matchMedia("(min-width: 701px)").matches) opened.add("second");
}

function draft(text) {
  try {
    if (text === undefined) return sessionStorage.getItem(`comment-${pair.id}`);
    sessionStorage.setItem(`comment-${pair.id}`, text);
  } catch { /* a draft is a comfort, not a need */ }
  return "";
}

function tab(side) {
  opened.add(side);
  $("panes").dataset.shown = side;
  $("tab-first").setAttribute("aria-pressed", String(side === "first"));
  $("tab-second").setAttribute("aria-pressed", String(side === "second"));
}

function choose(which) {
  choice = which;
  for (const id of ["first", "second", "tie"]) $(id).setAttribute("aria-pressed", String(which === id));
  $("confirm").disabled = sending || !which;
  if (which) $("saved").textContent = "";
}

async function confirm() {
  if (!choice || sending || !pair) return;
  if (opened.size < 2) { notice("Look at both texts first.", true); tab("second"); return; }
  await send({ winner: choice, comment: $("comment").value });
}

async function send(what) {
  sending = true; $("confirm").disabled = true; notice("");
  tick();
  const sent = pair, chosen = choice, wasChange = changing;
  const body = { pair: pair.id, change: changing, active_s: activeS, elapsed_s: (Date.now() - shownAt) / 1000, ...what };
  // The next pair is here already: it is shown while the answer is stored.
  if (desk.next && !changing) { pair = desk.next; show(); }
  try {
    for (let attempt = 0; ; attempt++) {
      try { take(await call("/judge/answers", body)); break; }
      catch (error) {
        // Sent again it counts once: the pair is its key.
        if (error.status && error.status !== 503 || attempt >= 4) throw error;
        notice("No connection: trying again …", true);
        await new Promise((done) => setTimeout(done, 500 * 2 ** attempt));
      }
    }
    notice("");
    sending = false;
    if (pair && pair.id === shownId) { choose(choice); $("back").disabled = !desk.may_go_back; } else show();
    $("saved").textContent = "Saved";
  } catch (error) {
    sending = false;
    if (shownId !== sent.id) { pair = sent; show(); choose(chosen); }
    changing = wasChange;
    $("confirm").disabled = !choice;
    notice(error.message);
    if (error.status === 401) { $("bar").hidden = $("pair").hidden = true; }
  }
}

async function back() {
  try {
    pair = (await call("/judge/previous")).pair; changing = true;
    show();
    notice("This is the pair before. Choose again to change its verdict, or reload to go on.", true);
  } catch (error) { notice(error.message, true); }
}

function tick() {
  const now = Date.now();
  if (!document.hidden && now - lastInput < IDLE_S * 1000) activeS += Math.min(now - lastTick, 2000) / 1000;
  lastTick = now;
}
setInterval(tick, 1000);
for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart", "scroll"])
  addEventListener(kind, () => { lastInput = Date.now(); }, { passive: true, capture: true });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !$("keys").checked || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || $("bar").hidden) return;
  const chosen = { 1: "first", ArrowLeft: "first", 2: "second", ArrowRight: "second", 3: desk.allow_ties ? "tie" : null }[event.key];
  if (chosen) { event.preventDefault(); choose(chosen); }
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); confirm(); }
  else if (event.key === "?") { event.preventDefault(); $("help").showModal(); }
});
for (const id of ["first", "second", "tie"]) $(id).addEventListener("click", () => choose(id));
$("tab-first").addEventListener("click", () => tab("first"));
$("tab-second").addEventListener("click", () => tab("second"));
$("confirm").addEventListener("click", confirm);
for (const id of ["back", "back-from-end"]) $(id).addEventListener("click", back);
$("begin").addEventListener("click", () => { try { sessionStorage.setItem("begun", "yes"); } catch { /* likewise */ } show(); $("pane-first").focus(); });
$("again").addEventListener("click", () => location.reload());
$("comment").addEventListener("input", () => draft($("comment").value));
$("open-help").addEventListener("click", () => $("help").showModal());
$("close-help").addEventListener("click", () => $("help").close());
$("skip").addEventListener("click", () => { $("skip-form").reset(); $("skipping").showModal(); });
$("close-skip").addEventListener("click", () => $("skipping").close());
$("skip-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const why = new FormData($("skip-form")).get("why");
  $("skipping").close();
  if (changing) { notice("A verdict that was given cannot be skipped.", true); return; }
  send({ skip: why, comment: $("skip-comment").value });
});
start();
