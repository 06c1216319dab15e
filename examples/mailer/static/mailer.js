// The page's side of web.py: one websocket, any number of jobs, and the sink's messages by HTTP.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const CANCELLED = -32002;

let socket = null;
let retries = 0;
let retryTimer = 0;
let withSink = true;
let jobCounter = 0;
const jobs = new Map(); // the running ones, by name

function announce(text) {
  $("announcer").textContent = text;
}

// -- connection -----------------------------------------------------------------------------------

function connect() {
  clearTimeout(retryTimer);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const attempt = new WebSocket(`${scheme}//${location.host}/`);
  socket = attempt;
  attempt.onmessage = (event) => receive(JSON.parse(event.data));
  attempt.onclose = () => {
    if (socket === attempt) lost();
  };
}

function opened(hello) {
  setLive("open", "Connected");
  $("send").disabled = false;
  $("mail-server").textContent = hello.sink ? "" : `Mails go to ${hello.mail_server}`;
  withSink = hello.sink;
  $("inbox").hidden = $("count-field").hidden = $("own-hint").hidden = !withSink;
  document.querySelector("main").classList.toggle("no-sink", !withSink);
  $("form").elements.count.disabled = !withSink;
  $("form").elements.count.max = hello.max_recipients;
  $("form").elements.addresses.required = !withSink;
  if (!withSink) $("own").open = true;
  if (retries > 0) {
    banner("Connected again.", "good");
    setTimeout(() => socket?.readyState === WebSocket.OPEN && ($("banner").hidden = true), 4000);
  }
  retries = 0;
  pingTimer = setTimeout(ping, 300); // not while the page is still busy with appearing
}

function lost() {
  clearTimeout(pingTimer);
  setLive("lost", "Disconnected");
  $("send").disabled = true;
  for (const job of [...jobs.values()]) {
    finish(job, "interrupted", "Interrupted");
    job.outcome("The connection was lost. Mails may still be going out; the result is not known here.");
  }
  const full = Math.min(10, 0.5 * 2 ** retries++);
  let seconds = full * (0.75 + Math.random() / 2); // not all pages at the same moment
  const tick = () => {
    if (seconds <= 0) {
      banner("Connection lost. Connecting…");
      connect();
      return;
    }
    banner(`Connection lost. Trying again in ${Math.ceil(seconds)} s.`, "warn", true);
    const step = Math.min(1, seconds);
    seconds -= step;
    retryTimer = setTimeout(tick, step * 1000);
  };
  tick();
}

function banner(text, kind = "warn", canRetry = false) {
  if ($("banner-text").textContent !== text) $("banner-text").textContent = text;
  $("banner").dataset.kind = kind;
  $("banner").hidden = false;
  $("retry").hidden = !canRetry;
}

function setLive(state, text) {
  $("live").dataset.state = state;
  $("live-state").textContent = text;
}

function send(message) {
  socket.send(JSON.stringify(message));
}

function receive(event) {
  if (event.event === "hello") opened(event);
  else if (event.event === "pong") ponged(event.ping);
  else jobs.get(event.job)?.[event.event]?.(event);
}

// -- is the front end responsive? -----------------------------------------------------------------

const SAMPLES = 60;
const roundTrips = [];
let pingTimer = 0;

function ping() {
  clearTimeout(pingTimer);
  if (socket?.readyState !== WebSocket.OPEN) return;
  send({ ping: performance.now() });
  pingTimer = setTimeout(unanswered, 8000);
}

// The other end is silent, e.g. its machine has gone without a word.
function unanswered() {
  const silent = socket;
  socket = null;
  silent.close();
  lost();
}

function ponged(sent) {
  roundTrips.push(performance.now() - sent);
  if (roundTrips.length > SAMPLES) roundTrips.shift();
  const max = Math.max(...roundTrips);
  const text = (ms) => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0));
  $("round-trip").textContent = text(roundTrips.at(-1));
  $("round-trip-max").textContent = text(max);
  const top = Math.max(20, max);
  $("spark").firstElementChild.setAttribute("points", roundTrips
    .map((ms, i) => `${(120 * (i + SAMPLES - roundTrips.length)) / (SAMPLES - 1)},${23 - (22 * ms) / top}`)
    .join(" "));
  clearTimeout(pingTimer);
  pingTimer = setTimeout(ping, jobs.size ? 100 : 2000);
}

// -- jobs -----------------------------------------------------------------------------------------

class Job {
  constructor(name, total) {
    this.name = name;
    this.total = total;
    this.processed = 0;
    this.started = performance.now();
    this.recent = [[this.started, 0]]; // of the last second, for the rate
    this.announced = 0;
    this.card = $("job-template").content.firstElementChild.cloneNode(true);
    const readers = total === 1 ? "1 recipient" : `${number.format(total)} recipients`;
    this.title = `Newsletter #${name}: ${readers}`;
    this.find("h3").textContent = this.title;
    const bar = this.find("progress");
    bar.max = total;
    bar.setAttribute("aria-label", this.title);
    this.find(".cancel").setAttribute("aria-label", `Cancel newsletter #${name}`);
    this.find(".cancel").onclick = () => send({ cancel: name });
    this.show();
  }

  find(selector) {
    return this.card.querySelector(selector);
  }

  get seconds() {
    return (performance.now() - this.started) / 1000;
  }

  show() {
    this.find("progress").value = this.processed;
    this.find(".done").textContent = `${number.format(this.processed)} / ${number.format(this.total)}`;
    this.find(".elapsed").textContent = `${this.seconds.toFixed(1)} s`;
  }

  outcome(text) {
    this.find(".outcome").textContent = text;
    this.find(".outcome").hidden = false;
  }

  progress({ done }) {
    const now = performance.now();
    this.processed = done;
    this.recent.push([now, done]);
    while (this.recent.length > 2 && now - this.recent[0][0] > 1000) this.recent.shift();
    const [then, before] = this.recent[0];
    if (now > then) this.find(".rate").textContent = number.format(Math.round((1000 * (done - before)) / (now - then)));
    const quarter = Math.floor((4 * done) / this.total);
    if (quarter > this.announced && quarter < 4) {
      this.announced = quarter;
      announce(`${this.title}: ${25 * quarter} percent`);
    }
  }

  result({ result }) {
    this.processed = result.sent + result.failed;
    const rate = Math.round(result.sent / Math.max(result.seconds, 0.001));
    this.find(".rate").textContent = number.format(rate);
    const failed = result.failed ? `, ${number.format(result.failed)} failed` : "";
    this.outcome(`Job done: ${number.format(result.sent)} sent${failed}, in ${result.seconds.toFixed(2)} s.`);
    if (result.failed) this.showFailures(result);
  }

  showFailures({ failed, failures }) {
    const more = failed > failures.length ? `, the first ${failures.length}` : "";
    this.find(".failures").hidden = false;
    this.find(".failures summary").textContent = `${number.format(failed)} failed${more}`;
    this.find(".failures ul").replaceChildren(...failures.map(({ to, reason }) => {
      const item = document.createElement("li");
      item.textContent = `${to}: ${reason}`;
      return item;
    }));
  }

  done({ text }) {
    finish(this, "done", text);
    this.find(".chip").lang = "ko";
  }

  error({ error }) {
    if (error.code === CANCELLED) {
      finish(this, "cancelled", "Cancelled");
      this.outcome(`Cancelled after about ${number.format(this.processed)} mails.`);
    } else {
      finish(this, "failed", "Failed");
      this.outcome(error.message);
    }
  }
}

function finish(job, state, text) {
  jobs.delete(job.name);
  job.card.dataset.state = state;
  job.find(".chip").textContent = text;
  job.show();
  announce(`${job.title}: ${text}`);
  pollSoon();
}

function start(event) {
  event.preventDefault();
  const fields = $("form").elements;
  const addresses = fields.addresses.value.split(/[\s,;]+/).filter(Boolean);
  const recipients = addresses.length ? addresses : fields.count.valueAsNumber;
  const job = new Job(String(++jobCounter), addresses.length || recipients);
  jobs.set(job.name, job);
  $("jobs").prepend(job.card);
  $("no-jobs").hidden = true;
  job.card.scrollIntoView({ block: "nearest" });
  send({ job: job.name, from: fields.from.value, recipients, contents: fields.contents.value });
  announce(`${job.title}: started`);
  requestAnimationFrame(animate);
  pollSoon();
  setTimeout(ping, 50);
}

function animate() {
  for (const job of jobs.values()) job.show();
  if (jobs.size) requestAnimationFrame(animate);
}

// -- what the sink has received -------------------------------------------------------------------

let pollTimer = 0;
let newest = 0;

async function poll() {
  clearTimeout(pollTimer);
  if (withSink && !document.hidden) {
    try {
      const response = await fetch("messages?newest=12");
      if (response.ok) showMessages(await response.json());
    } catch {
      // The server is away; the banner says so.
    }
  }
  pollTimer = setTimeout(poll, jobs.size ? 500 : 3000);
}

function pollSoon() {
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, 100);
}

function showMessages({ count, messages }) {
  $("received").textContent = number.format(count);
  $("no-messages").hidden = messages.length > 0;
  const latest = messages.length ? messages[0].id : 0;
  // Nothing moves away from under a pointer or the keyboard's focus.
  if (latest === newest || $("messages").matches(":hover, :has(:focus-visible)")) return;
  newest = latest;
  $("messages").replaceChildren(...messages.map((message) => {
    const item = $("message-template").content.firstElementChild.cloneNode(true);
    item.querySelector(".to").textContent = message.to.join(", ");
    item.querySelector("time").textContent = new Date(message.received * 1000).toLocaleTimeString();
    item.querySelector(".subject").textContent = message.subject;
    item.querySelector("button").onclick = () => read(message.id);
    return item;
  }));
}

async function read(id) {
  let message = null;
  try {
    const response = await fetch(`messages/${id}`);
    if (response.ok) message = await response.json();
  } catch {
    // As for a message that is not kept any more.
  }
  $("reader-subject").textContent = message ? message.subject : "This message cannot be shown";
  $("reader-headers").replaceChildren(...(message?.headers ?? [])
    .filter(([name]) => ["From", "To", "Date", "Message-ID"].includes(name))
    .flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }));
  $("reader-text").textContent = message?.text ?? "The sink does not keep it any more, or is away.";
  $("reader").showModal();
}

$("form").addEventListener("submit", start);
$("form").elements.addresses.addEventListener("input", (event) => {
  $("form").elements.count.disabled = !withSink || event.target.value.trim() !== "";
});
$("retry").addEventListener("click", connect);
$("reader").addEventListener("click", (event) => event.target === $("reader") && $("reader").close());
document.addEventListener("visibilitychange", () => !document.hidden && poll());
connect();
poll();
