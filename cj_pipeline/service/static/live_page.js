"use strict";
// Everything that comes from a batch is set as text, never as markup.
const part = (id) => document.getElementById(id);
const batchId = location.pathname.startsWith("/batches/") ? decodeURIComponent(location.pathname.slice(9)) : null;
const address = batchId === null ? null : `/api/v1/batches/${encodeURIComponent(batchId)}`;
const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000, SHOWN_EVENTS = 50;
part("up").hidden = batchId === null;
let last = 0, wait = FIRST_WAIT_MS, ended = false;

const words = {
  opened: "started", asked: "wave submitted", checkpoint: "checkpoint", decided: "wave decided",
  cancelling: "cancellation requested", ended: "ended",
};
const dollars = (usd) => `$${usd.toFixed(usd >= 1 ? 2 : 4)}`;
const duration = (s) => s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const say = (text) => { if (part("connection").textContent !== text) part("connection").textContent = text; };

function cells(row, values, firstNumber, lastNumber = values.length) {
  values.forEach((value, index) => {
    const cell = document.createElement("td");
    cell.append(value);
    if (index >= firstNumber && index <= lastNumber) cell.className = "number";
    row.append(cell);
  });
  return row;
}

function showTimeLeft(progress) {
  const runs = progress.state === "running", eta = progress.eta;
  part("left").textContent = !runs ? "none" : eta === null ? "unknown" : duration(eta.seconds);
  part("between").hidden = !runs || eta === null;
  if (runs && eta !== null) part("between").textContent = `${duration(eta.low_seconds)} to ${duration(eta.high_seconds)}`;
}

function banner(text, kind) {
  part("banner").hidden = !text;
  part("banner").className = `banner ${kind}`;
  if (part("banner").textContent !== text) part("banner").textContent = text;
}

function show(progress) {
  part("sign-in").hidden = true;
  part("batch").hidden = false;
  part("bar").value = progress.share_done;
  part("share").textContent = `${Math.floor(100 * progress.share_done)} %`;
  part("done").textContent = `${progress.n_done} of ${progress.n_expected}`;
  part("failed").textContent = progress.n_failed;
  part("flying").textContent = progress.n_in_flight;
  part("pace").textContent = progress.comparisons_per_s === null ? "unknown" : `${progress.comparisons_per_s.toFixed(2)}/s`;
  showTimeLeft(progress);
  part("cost").textContent = dollars(progress.cost_usd);
  part("projected").textContent = progress.projected_usd === null ? "unknown" : dollars(progress.projected_usd);
  part("wave").textContent = progress.wave;
  part("cancel").hidden = progress.state !== "running" || progress.is_cancelling;
  part("judges").replaceChildren(...progress.targets.map((target) => cells(document.createElement("tr"), [
    target.name, target.model, target.status, target.n_done, target.n_asked, target.n_failed,
    target.comparisons_per_s === null ? "unknown" : target.comparisons_per_s.toFixed(2),
    target.tokens.toLocaleString("en"), target.cost_usd.toFixed(4),
  ].map(String), 3)));
  document.title = `${Math.floor(100 * progress.share_done)} % ${progress.batch_id}`;
  if (progress.is_cancelling) banner("Being cancelled: collecting what was paid for.", "");
  else if (progress.outcome !== null) {
    const good = progress.outcome === "success" || progress.outcome === "partial";
    banner(`Ended: ${progress.outcome} (${(progress.end_reason || "").replaceAll("_", " ")})`, good ? "good" : "bad");
  } else banner("", "");
}

function tell(event) {
  if (event.sequence <= last) return;
  last = event.sequence;
  const item = document.createElement("li");
  item.value = event.sequence;
  const at = document.createElement("time");
  at.dateTime = event.at;
  at.textContent = new Date(event.at).toLocaleTimeString();
  item.append(at, `${words[event.kind] || event.kind}: ${event.progress.n_done} of ${event.progress.n_expected}, ${dollars(event.progress.cost_usd)}`);
  part("events").prepend(item);
  while (part("events").children.length > SHOWN_EVENTS) part("events").lastChild.remove();
}

async function ask(path, options) {
  const reply = await fetch(path, { ...options, credentials: "same-origin", headers: { "Content-Type": "application/json" } });
  if (reply.status === 401) { signIn(); throw new Error("signed out"); }
  const body = reply.status === 204 ? null : await reply.json();
  if (!reply.ok) throw new Error([body.detail, ...(body.problems || [])].join("\n"));
  return body;
}

function signIn() {
  for (const id of ["list", "batch"]) part(id).hidden = true;
  part("sign-in").hidden = false;
  say("Sign in to see anything.");
  part("token").focus();
}

part("sign-in").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const token = part("token").value;
  part("token").value = "";
  const reply = await fetch("/session", { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
  part("sign-in-problem").textContent = reply.ok ? "" : "That is not the service's token.";
  if (reply.ok) { part("sign-in").hidden = true; start(); }
});

async function links() {
  const found = await ask(address);
  part("title").textContent = found.title;
  if (found.problems.length) banner(["Rejected:", ...found.problems].join("\n"), "bad");
  const provisional = ["provisional", "changed since release", "withdrawn"].includes(found.release);
  const look = part("moderation");
  look.hidden = !provisional;
  look.href = `/moderation/${encodeURIComponent(found.batch_id)}`;
  for (const [id, there] of [["report", found.has_report], ["artefact", found.has_artefact]]) {
    part(id).hidden = !there;
    part(id).href = `${address}/${id}`;
  }
  return found;
}

// Grades and the report follow the end within seconds.
async function afterEnd(tries) {
  say("Ended.");
  const found = await links();
  if (!found.has_report && found.state !== "rejected" && tries > 0) setTimeout(() => afterEnd(tries - 1).catch(() => {}), 3000);
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${address}/events?after=${last}`);
  socket.addEventListener("message", (message) => {
    wait = FIRST_WAIT_MS;
    const said = JSON.parse(message.data);
    if (said.type === "queued") { say("In the inbox; not started yet. Dagster starts it: `cj ui`, or its daemon, has to run."); return; }
    say("Live.");
    if (said.type === "event") tell(said);
    else show(said.progress);
  });
  socket.addEventListener("close", (closed) => {
    if (closed.code === 1000 || closed.code === 4422) { ended = true; afterEnd(40).catch((error) => banner(error.message, "bad")); return; }
    if (closed.code === 4404) { say("There is no such batch."); return; }
    say(`Connection lost; trying again in ${Math.ceil(wait / 1000)} s.`);
    setTimeout(() => start(), wait);
    wait = Math.min(LONGEST_WAIT_MS, 2 * wait);
  });
}

async function list(after) {
  const found = await ask(`/api/v1/batches?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`);
  part("list").hidden = false;
  const to = (href, text) => {
    const link = document.createElement("a");
    link.href = href;
    link.textContent = text;
    return link;
  };
  const named = (name, title) => {
    const both = document.createElement("span");
    both.append(to(`/batches/${encodeURIComponent(name)}`, name));
    if (title && title !== name) {
      const said = document.createElement("span");
      said.className = "quiet";
      said.textContent = title;
      both.append(document.createElement("br"), said);
    }
    return both;
  };
  const row = (name, title, ...rest) => cells(document.createElement("tr"), [named(name, title), ...rest], 2, 5);
  const why = (each) => each.state === "rejected" ? each.problems.join("; ") : each.hindered_by;
  const report = (each) => each.has_report ? to(`/api/v1/batches/${encodeURIComponent(each.batch_id)}/report`, "Report") : "";
  part("rows").append(
    ...found.queued.map((name) => row(name, "", "queued", "", "", "", "", "It waits in the inbox.", "")),
    ...found.items.map((each) => row(each.batch_id, each.title, each.end_reason ? `${each.state} (${each.end_reason.replaceAll("_", " ")})` : each.state, String(each.n_essays), String(each.n_completed), String(each.n_failed), each.cost_usd.toFixed(4), why(each), report(each))),
  );
  part("none").hidden = part("rows").children.length > 0;
  part("more").hidden = found.next === null;
  part("more").onclick = () => list(found.next).catch((error) => say(error.message));
  say("");
}

async function start() {
  try {
    if (batchId === null) { await list(null); return; }
    part("title").textContent = batchId;
    await links();
    if (!ended) connect();
  } catch (error) {
    if (error.message === "signed out") return;
    if (!(error instanceof TypeError)) { say(error.message); return; }
    say(`The service does not answer; trying again in ${Math.ceil(wait / 1000)} s.`);
    setTimeout(start, wait);
    wait = Math.min(LONGEST_WAIT_MS, 2 * wait);
  }
}

part("cancel").addEventListener("click", () => part("ask").showModal());
part("no").addEventListener("click", () => part("ask").close());
part("yes").addEventListener("click", async () => {
  part("ask").close();
  try { await ask(address, { method: "DELETE" }); } catch (error) { banner(error.message, "bad"); }
});
start();
