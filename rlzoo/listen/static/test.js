"use strict";

const place = document.getElementById("trial");
const choices = [...document.querySelectorAll(".choice")];
const next = document.getElementById("next");
const status = document.getElementById("status");
const text = document.getElementById("text");

let trial = null;
let choice = null;
let began = 0;
let sending = false;

const first = new Player(document.getElementById("play-first"), document.getElementById("sound-first"),
  {onPlay: () => second.stop(), onHeard: update});
const second = new Player(document.getElementById("play-second"), document.getElementById("sound-second"),
  {onPlay: () => first.stop(), onHeard: update});

function show(given) {
  trial = given;
  choice = null;
  began = performance.now();
  document.getElementById("count").textContent = `${trial.number} of ${trial.total}`;
  document.getElementById("progress").style.width = `${100 * (trial.number - 1) / trial.total}%`;
  text.textContent = trial.text;
  text.hidden = !trial.text;
  first.load(trial.first);
  second.load(trial.second);
  update();
}

function update() {
  const ready = first.heard && second.heard;
  for (const button of choices) {
    button.disabled = !ready || sending;
    button.setAttribute("aria-checked", String(button.dataset.choice === choice));
  }
  next.disabled = !choice || sending;
  if (sending) {
    return;
  }
  if (!ready) {
    const open = first.heard ? "B" : second.heard ? "A" : null;
    say(open ? `Now listen to ${open}.` : "Listen to both recordings first.");
  } else {
    say(choice ? "" : "You may listen again as often as you like.");
  }
}

function say(words, problem = false) {
  status.textContent = words;
  status.classList.toggle("problem", problem);
}

function choose(name) {
  if (first.heard && second.heard && !sending) {
    choice = name;
    update();
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Sent again until the server has it: the server counts an answer once, however often it arrives.
async function send() {
  if (!choice || sending) {
    return;
  }
  sending = true;
  first.stop();
  second.stop();
  update();
  const body = JSON.stringify({
    trial: trial.id,
    choice,
    seconds: (performance.now() - began) / 1000,
    plays: first.plays + second.plays,
  });
  for (let wait = 1; ; wait = Math.min(2 * wait, 30)) {
    let response = null;
    try {
      response = await fetch("/answer", {method: "POST", headers: {"content-type": "application/json"}, body});
    } catch {
      response = null;
    }
    if (response && response.ok) {
      const following = (await response.json()).next;
      sending = false;
      if (following) {
        show(following);
        document.activeElement.blur();
        window.scrollTo(0, 0);
      } else {
        location.assign("/done");
      }
      return;
    }
    if (response && response.status === 409) {
      location.reload();  // answered in another window: go on where that one stopped
      return;
    }
    if (response && response.status < 500 && response.status !== 429) {
      say("Your session is no longer valid. Please open your link again.", true);
      return;
    }
    say(`No connection. Your answer is kept here; trying again in ${wait} s …`, true);
    await pause(wait);
  }
}

for (const button of choices) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
next.addEventListener("click", send);

const keys = {
  ArrowLeft: () => first.toggle(),
  a: () => first.toggle(),
  ArrowRight: () => second.toggle(),
  b: () => second.toggle(),
  1: () => choose("first"),
  2: () => choose("same"),
  0: () => choose("same"),
  3: () => choose("second"),
  Enter: send,
};
document.addEventListener("keydown", (event) => {
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("details")) {
    return;
  }
  event.preventDefault();
  act();
});

show(JSON.parse(place.dataset.trial));
