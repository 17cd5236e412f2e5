"use strict";
// Texts are set as text, never as markup; what is decided is stored by the API under the name given.
const $ = (id) => document.getElementById(id);
const batch = decodeURIComponent(location.pathname.split("/")[2] || "");
const base = `/api/v1/batches/${encodeURIComponent(batch)}`;

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

async function attempt(work) {
  $("notice").textContent = "";
  try { await work(); }
  catch (error) {
    $("notice").textContent = error.message;
    if (error.status === 401) { $("sign-in").hidden = false; $("content").hidden = true; }
  }
}

function element(kind, text, parent) {
  const made = document.createElement(kind); made.textContent = text; parent.append(made); return made;
}

function show(found) {
  $("sign-in").hidden = true; $("content").hidden = false;
  $("title").textContent = `Moderation of ${batch}`; document.title = `Moderation of ${batch}`;
  $("batch").href = `/batches/${encodeURIComponent(batch)}`;
  status(found.release, found.statement);
  $("queue").replaceChildren(...found.items.map((item) => entry(item, found.grades)));
  $("none").hidden = found.items.length > 0;
}

function status(release, statement) {
  $("statement").textContent = statement || (release.status === "no grades" ? "There are no grades." : "These grades need no sign-off.");
  $("release").hidden = !release.is_provisional;
  $("withdraw").hidden = !["released", "changed since release"].includes(release.status);
}

function entry(item, grades) {
  const made = $("entry").content.firstElementChild.cloneNode(true);
  const find = (selector) => made.querySelector(selector);
  find("h3").textContent = `${item.essay_id}${item.is_anchor ? " (anchor)" : ""}`;
  find(".grade").textContent = item.is_anchor ? "" : item.given_grade === item.grade
    ? `Grade ${item.grade}, probability ${Math.round(100 * item.confidence)} %`
    : `Grade ${item.given_grade ?? "none"} by a person; by the verdicts ${item.grade}`;
  for (const reason of item.reasons) element("li", reason, find(".reasons"));
  for (const verdict of item.verdicts) element("li", verdict, find(".verdicts"));
  if (item.decision) {
    made.classList.add("decided");
    find(".decision").textContent = `${item.decision.kind} by ${item.decision.decided_by}${item.decision.reason ? `: ${item.decision.reason}` : ""}`;
  }
  for (const grade of grades) element("option", grade, find("select"));
  if (item.grade) find("select").value = item.grade;
  if (item.is_anchor) for (const kind of ["accept", "override", "exclude"]) find(`button[value=${kind}]`).hidden = true;
  find("details").addEventListener("toggle", () => {
    if (!find("details").open || find(".texts").childElementCount) return;
    attempt(async () => {
      const read = await call(`${base}/moderation/${encodeURIComponent(item.essay_id)}`);
      for (const each of [{ essay_id: item.essay_id, text: read.text }, ...read.neighbours]) {
        const box = document.createElement("section");
        box.tabIndex = 0;
        element("h4", each.grade ? `Anchor ${each.essay_id}: ${each.grade}` : each.essay_id, box);
        element("div", each.text, box);
        if (each.grade) element("a", "Both side by side, with every verdict on the two", box).href = `/batches/${encodeURIComponent(batch)}/essays/${encodeURIComponent(item.essay_id)}/beside/${encodeURIComponent(each.essay_id)}`;
        find(".texts").append(box);
      }
    });
  });
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = event.submitter.value;
    attempt(async () => show(await call(`${base}/moderation`, {
      essay_id: item.essay_id, decision: kind, by: $("by").value, reason: find("input[name=reason]").value,
      grade: kind === "override" ? find("select").value : null,
    })));
  });
  return made;
}

function sign(withdraw) {
  for (const id of ["release", "withdraw"]) $(id).disabled = true;
  attempt(async () => {
    await call(`${base}/release`, { by: $("by").value, note: $("note").value, withdraw });
    show(await call(`${base}/moderation`));
  }).finally(() => { for (const id of ["release", "withdraw"]) $(id).disabled = false; });
}
$("release").addEventListener("click", () => sign(false));
$("withdraw").addEventListener("click", () => sign(true));
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => { await call("/session", { token: $("token").value }); show(await call(`${base}/moderation`)); });
});
attempt(async () => show(await call(`${base}/moderation`)));
