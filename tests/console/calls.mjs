// Compares the browser's calls of Keyway with the recorded list, which a test in Rust replays.

import assert from "node:assert/strict"

const SECONDS_TO_SETTLE = 20

/** The service in the scope of a signature; `null` where there is none. */
function signedFor(headers) {
  const scope = /Credential=[^/]+\/\d{8}\/[^/]+\/([^/]+)\/aws4_request/.exec(headers.authorization ?? "")
  return scope?.[1] ?? null
}

/** The pairs of a query or form as an object, by name. */
const pairs = (found) => Object.fromEntries([...found].sort(([a], [b]) => (a < b ? -1 : 1)))

function bodyOf(request, headers) {
  const text = request.postData()
  if (!text) return null
  const type = headers["content-type"] ?? ""
  if (type.includes("json")) return JSON.parse(text)
  return type.includes("form") ? pairs(new URLSearchParams(text)) : text
}

/** Headers that a browser sends on its own, or without asking the other origin first. */
const ITS_OWN = /^(?::.*|accept.*|connection|content-length|cookie|host|origin|referer|sec-.*|user-agent)$/

/** One call in the list's form. */
async function shaped(request, clients) {
  const url = new URL(request.url())
  const [headers, response] = await Promise.all([request.allHeaders(), request.response()])
  const call = { method: request.method(), path: url.pathname }
  if (url.search) call.query = pairs(url.searchParams)
  const service = signedFor(headers)
  const declared = headers["x-amz-content-sha256"]
  const payload = /^[0-9a-f]{64}$/.test(declared) ? "hash" : declared
  const names = Object.keys(headers).filter((name) => !ITS_OWN.test(name))
  if (service) {
    const [name, client] = Object.entries(clients).find(([, it]) => it.signed_for === service && it.payload === payload) ?? []
    call.client = name ?? `${service} ${payload}`
    const besides = names.filter((name) => !client?.sends.includes(name))
    if (besides.length > 0) call.headers_besides = besides
  }
  const body = bodyOf(request, headers)
  if (body !== null) call.body = body
  call.status = response?.status() ?? 0
  return { call, response }
}

/** Watches what `page` asks `server` for. Preflights are the browser's own and are not seen: where one is refused, the call is
 * seen with the status 0. */
export function watch(page, server, clients) {
  let answered = []
  const open = new Set()
  const isCall = (request) => request.url().startsWith(server)
  page.on("request", (request) => {
    if (isCall(request)) open.add(request)
  })
  // Not at its end: a body that is not read may never end.
  const answer = (request) => {
    if (open.delete(request)) answered.push(shaped(request, clients))
  }
  page.on("response", (response) => answer(response.request()))
  page.on("requestfailed", answer)
  return {
    /** The calls since the last time, as soon as they are all that `enough` wants. */
    async take(enough) {
      const deadline = Date.now() + SECONDS_TO_SETTLE * 1000
      while (Date.now() < deadline) {
        if (open.size === 0 && enough(await Promise.all(answered))) break
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      const taken = answered
      answered = []
      return Promise.all(taken)
    },
  }
}

/** Whether a value is the list's. A name in braces stands there for a text that differs from run to run. */
function fits(pattern, value) {
  if (typeof pattern === "string" && /^\{.+\}$/.test(pattern)) return typeof value === "string" && value !== ""
  if (pattern === null || typeof pattern !== "object") return pattern === value
  if (value === null || typeof value !== "object") return false
  const names = Object.keys(pattern)
  const same = names.length === Object.keys(value).length
  return same && names.every((name) => name in value && fits(pattern[name], value[name]))
}

/** What is left of the step's calls when those that were made are taken away, and what was made besides. */
function compare(step, calls) {
  const left = step.calls.map(({ reads: _reads, ...call }) => call)
  const unknown = []
  for (const { call } of calls) {
    const at = left.findIndex(({ sometimes: _sometimes, ...wanted }) => fits(wanted, call))
    if (at < 0) unknown.push(call)
    else if (!left[at].sometimes) left.splice(at, 1)
  }
  return { missing: left.filter((call) => !call.sometimes), unknown }
}

/** Whether every call of the step was made. */
export const isComplete = (step, calls) => compare(step, calls).missing.length === 0

/** Refuses what is not the step's. Calls marked `sometimes` may be missing, or come more than once. */
export function hold(step, calls) {
  const { missing, unknown } = compare(step, calls)
  assert.deepEqual(unknown, [], `step "${step.name}": these calls are not in the list`)
  assert.deepEqual(missing, [], `step "${step.name}": these calls of the list were not made`)
}
