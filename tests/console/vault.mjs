// OpenBao in memory, installed by `scripts/bao`.

import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

const SECONDS_TO_START = 30
const TOKEN = "console-vault-token"

/** A port that was free a moment ago: OpenBao does not say which one it took. */
async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Starts OpenBao with its engines `transit` and `secret`. */
export async function startVault(binary) {
  const folder = mkdtempSync(join(tmpdir(), "keyway-console-vault-"))
  const address = `127.0.0.1:${await freePort()}`
  const options = [`-dev-listen-address=${address}`, `-dev-root-token-id=${TOKEN}`, "-dev-no-store-token"]
  const server = spawn(binary, ["server", "-dev", ...options], {
    env: { PATH: process.env.PATH, HOME: folder },
    stdio: ["ignore", "pipe", "pipe"],
  })
  process.on("exit", () => server.kill("SIGKILL"))
  let said = ""
  server.stdout.on("data", (text) => (said += text))
  server.stderr.on("data", (text) => (said += text))
  const url = `http://${address}`
  const call = (method, path, body) =>
    fetch(`${url}/v1/${path}`, { method, headers: { "x-vault-token": TOKEN }, body: body && JSON.stringify(body) })
  const deadline = Date.now() + SECONDS_TO_START * 1000
  const made = async () => {
    const answer = await call("POST", "sys/mounts/transit", { type: "transit" }).catch(() => undefined)
    return answer?.ok
  }
  while (!(await made())) {
    if (server.exitCode !== null || Date.now() > deadline) throw new Error(`OpenBao does not start: ${said}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return {
    url,
    token: TOKEN,
    list: async (path) => (await (await call("LIST", path)).json()).data.keys,
    log: () => said,
    async stop() {
      const ended = new Promise((resolve) => server.once("exit", resolve))
      if (server.exitCode === null && server.kill()) await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
