// A Keyway process for this test, and another client of it.

import { execFile, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { promisify } from "node:util"

import { AwsClient } from "aws4fetch"

const ROOT = { accessKeyId: "console-root", secretAccessKey: "console-root-secret" }
const SECONDS_TO_START = 30

/** Starts `binary serve` with these options and lets pages of `origin` call it. */
export async function startKeyway(binary, origin, ...options) {
  const folder = mkdtempSync(join(tmpdir(), "keyway-console-"))
  const data = join(folder, "data")
  const arguments_ = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--cors-origins", origin, ...options]
  const env = {
    PATH: process.env.PATH,
    KEYWAY_ROOT_ACCESS_KEY: ROOT.accessKeyId,
    KEYWAY_ROOT_SECRET_KEY: ROOT.secretAccessKey,
  }
  const server = spawn(binary, arguments_, { env, stdio: ["ignore", "pipe", "pipe"] })
  process.on("exit", () => server.kill("SIGKILL"))
  let said = ""
  server.stderr.on("data", (text) => (said += text))
  const address = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Keyway does not serve: ${said}`)), SECONDS_TO_START * 1000)
    server.on("exit", (code) => reject(new Error(`Keyway ended with ${code}: ${said}`)))
    createInterface({ input: server.stdout }).on("line", (line) => {
      const { audit, listen } = JSON.parse(line)
      if (audit === undefined) said += `${line}\n`
      if (!listen) return
      clearTimeout(timer)
      resolve(listen)
    })
  })
  server.removeAllListeners("exit")
  const url = `http://${address}`
  const root = new AwsClient({ ...ROOT, service: "s3", region: "us-east-1", retries: 0 })

  /** Calls a route as root, for a look from outside of the browser. */
  async function call(method, path, body) {
    const answer = await root.fetch(url + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    const isJson = answer.headers.get("content-type") === "application/json"
    return { status: answer.status, body: isJson ? JSON.parse(text) : text }
  }

  return {
    url,
    folder,
    root: ROOT,
    call,
    /** As `call`, below the admin API's prefix. */
    admin: (method, path, body) => call(method, `/rustfs/admin/v3${path}`, body),
    /** An access key of `policy`, made with these options. */
    async accessKey(policy, ...options) {
      const command = ["access-key", "create", "--data-dir", data, "--policy", policy, "--output", "json"]
      const made = await promisify(execFile)(binary, [...command, ...options], { env })
      return JSON.parse(made.stdout)
    },
    log: () => said,
    async stop() {
      const ended = new Promise((resolve) => server.once("exit", resolve))
      if (server.exitCode === null && server.kill()) await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
