// Drives RustFS's console in Chromium against a Keyway. Usage: node console.mjs CONSOLE KEYWAY CHROMIUM BAO TARGET
//
// CONSOLE holds the console's static export, TARGET gets the screenshot of a failure. Each step acts in the
// pages and checks their text, checks the result in Keyway as another client, and compares the browser's calls with
// tests/data/console-calls.json, which the tests in Rust replay.

import assert from "node:assert/strict"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { chromium } from "playwright-core"

import { hold, isComplete, watch } from "./calls.mjs"
import { startKeyway } from "./keyway.mjs"
import { servePages } from "./pages.mjs"
import { startVault } from "./vault.mjs"

const [consoleFolder, binary, executablePath, bao, target] = process.argv.slice(2)
const list = JSON.parse(readFileSync(new URL("../data/console-calls.json", import.meta.url), "utf8"))
/** A file to write the calls down in, instead of holding them against the list. */
const record = process.env.KEYWAY_CONSOLE_RECORD
const recorded = []

const pages = await servePages(consoleFolder)
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // The browser reaches this machine only. Playwright's routes would do the same, but answer preflights themselves.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
  ],
})

let page
let seen
let walk
let done = 0

/** A page of a browser that was never here before. */
async function open(keyway, name) {
  walk = { keyway, steps: list.walks[name], next: 0 }
  const context = await browser.newContext({ locale: "en-US", viewport: { width: 1400, height: 1000 } })
  context.setDefaultTimeout(20_000)
  page = await context.newPage()
  page.on("pageerror", (error) => (page.broken = error))
  seen = watch(page, keyway.url, list.clients)
}

/** The next step of the list. */
async function step(name, act) {
  const wanted = walk.steps[walk.next]
  walk.next += 1
  assert.equal(name, wanted?.name, "the next step of the list")
  for (const { method, path, body } of wanted.others ?? []) {
    assert.equal((await walk.keyway.call(method, path, body)).status, 200, `${method} ${path}`)
  }
  await act()
  assert.equal(page.broken, undefined, `step "${name}": the page broke`)
  if (record) {
    await page.waitForTimeout(1000)
    const calls = await seen.take(() => true)
    const all = calls.map(async ({ call, response }) => ({
      ...call,
      answer: await Promise.race([response?.text().catch(() => null), page.waitForTimeout(1000)]),
    }))
    recorded.push({ name, calls: await Promise.all(all) })
  } else {
    hold(wanted, await seen.take((calls) => isComplete(wanted, calls)))
  }
  done += 1
  console.log(`ok ${done} - ${name}`)
}

const says = (text) => page.getByText(text, { exact: true }).first().waitFor()
const press = (name) => page.getByRole("button", { name, exact: true }).first().click()
/** The console's menu is before its breadcrumbs, which may have the same name. */
const link = (name) => page.getByRole("link", { name }).first()
const choose = (name) => page.getByRole("menuitem", { name, exact: true }).click()
const inDialog = (name) => page.getByRole("alertdialog").getByRole("button", { name, exact: true }).click()
const pick = async (field, name) => {
  await page.locator(field).click()
  await page.getByRole("option", { name, exact: true }).click()
}
const row = (text) => page.getByRole("row").filter({ has: page.getByRole("cell", { name: text, exact: true }) })
const ofRow = async (text, name) => {
  await row(text).getByRole("button", { name: /^Actions/ }).click()
  await choose(name)
}
/** Waits until the row of a key says that it is so. */
const rowSays = (key, text) => row(key).getByRole("cell", { name: text, exact: true }).first().waitFor()

async function chooseServer(url) {
  await page.goto(pages.url("/config/"))
  await page.locator("#serverHost").fill(url)
  await press("Save Configuration")
  await page.locator("#accessKey").waitFor()
}

async function signIn({ accessKeyId, secretAccessKey, sessionToken }) {
  if (sessionToken) {
    await page.getByRole("tab", { name: "STS Login" }).click()
    await page.locator("#stsAccessKey").fill(accessKeyId)
    await page.locator("#stsSecretKey").fill(secretAccessKey)
    await page.locator("#sessionToken").fill(sessionToken)
  } else {
    await page.locator("#accessKey").fill(accessKeyId)
    await page.locator("#secretKey").fill(secretAccessKey)
  }
  await press("Login")
  await link("Browser").waitFor()
}

/** From nothing to an encrypted bucket, as an administrator goes. */
async function everything(keyway) {
  const { admin, call, root } = keyway
  const status = async () => (await admin("GET", "/kms/service-status")).body
  const key = async (id) => (await admin("GET", `/kms/keys/${id}`)).body.key_metadata

  await open(keyway, "root")
  await step("choose the server", () => chooseServer(keyway.url))
  await step("sign in", async () => {
    await signIn(root)
    await says("No Buckets")
  })
  await step("open the KMS page", async () => {
    await link("SSE Settings").click()
    await says("KMS server is not configured")
  })
  const keyDirectory = join(keyway.folder, "keys")
  await step("configure", async () => {
    await pick("#kmsBackend", "Local filesystem")
    await page.locator("#keyDir").fill(keyDirectory)
    await press("Save Configuration")
    await says("KMS configuration saved successfully")
    await says("KMS server is configured but not running")
    await says("Backend: Local")
    assert.equal((await status()).config_summary.backend_summary.key_directory, keyDirectory)
  })
  await step("start", async () => {
    await press("Start KMS")
    await inDialog("Confirm")
    await says("KMS service started successfully")
    await says("KMS server is running and healthy")
    await says("No KMS keys found")
    assert.equal((await status()).status, "Running")
  })
  await step("create a key", async () => {
    await press("Create Key")
    await page.locator("#kms-key-name").fill("console-key")
    await page.locator("#kms-key-description").fill("made in a browser")
    await page.getByRole("dialog").getByRole("button", { name: "Create Key", exact: true }).click()
    await says("KMS key created successfully")
    await rowSays("console-key", "Active")
    const made = await key("console-key")
    assert.equal(made.description, "made in a browser")
    assert.deepEqual(made.tags, { created_by: "console", name: "console-key" })
  })
  await step("create a key and make it the default", async () => {
    await press("Create Key")
    await page.locator("#kms-key-name").fill("console-default")
    await page.getByRole("dialog").getByRole("checkbox").click()
    await page.getByRole("dialog").getByRole("button", { name: "Create Key", exact: true }).click()
    await says("Default SSE key updated successfully")
    await rowSays("console-default", "Active")
    assert.equal((await status()).config_summary.default_key_id, "console-default")
  })
  await step("look at a key", async () => {
    await ofRow("console-key", "View Details")
    const drawer = page.getByRole("dialog")
    await drawer.getByText("Enabled", { exact: true }).waitFor()
    await drawer.getByText("made in a browser", { exact: true }).first().waitFor()
    await drawer.getByText("created_by: console", { exact: true }).waitFor()
    await drawer.getByRole("button", { name: "Close" }).click()
  })
  await step("schedule a deletion", async () => {
    await ofRow("console-key", "Schedule Deletion")
    await inDialog("Schedule Key Deletion")
    await says("Key deletion scheduled successfully")
    await rowSays("console-key", "PendingDeletion")
    const { key_state: state, deletion_date: date, creation_date: created } = await key("console-key")
    assert.equal(state, "PendingDeletion")
    const days = (Date.parse(date) - Date.parse(created)) / 86_400_000
    assert.ok(days >= 7 && days < 7.1, `${days} days`)
  })
  await step("cancel the deletion", async () => {
    await ofRow("console-key", "Cancel Deletion")
    await inDialog("Restore Key")
    await says("Key deletion canceled successfully")
    await rowSays("console-key", "Active")
    assert.equal((await key("console-key")).key_state, "Enabled")
  })
  await step("delete a key at once", async () => {
    await ofRow("console-key", "Delete Immediately")
    await inDialog("Delete Key Immediately")
    // Like RustFS 1.0, Keyway wants the id repeated, which the console does not do.
    await page.getByText(/confirm_key_id/).first().waitFor()
    await rowSays("console-key", "Active")
    assert.equal((await key("console-key")).key_state, "Enabled")
  })
  const refreshKeys = () => page.getByRole("button", { name: "Refresh", exact: true }).last().click()
  await step("see that another client disabled a key", async () => {
    await refreshKeys()
    await rowSays("console-key", "Disabled")
  })
  await step("see that another client enabled it", async () => {
    await refreshKeys()
    await rowSays("console-key", "Active")
  })
  await step("turn the pages of the list", async () => {
    await refreshKeys()
    await rowSays("page-27", "Active")
    assert.equal(await row("page-28").count(), 0)
    await press("Next")
    await rowSays("page-29", "Active")
    assert.equal(await row("console-key").count(), 0)
    await press("Previous")
    await rowSays("console-key", "Active")
  })
  await step("clear the cache", async () => {
    await press("Advanced Actions")
    await choose("Clear Cache")
    await says("Cache cleared successfully")
  })
  await step("restart", async () => {
    await press("Restart KMS")
    await inDialog("Confirm")
    await says("KMS service restarted successfully")
    assert.equal((await status()).status, "Running")
  })
  await step("stop, and start again", async () => {
    await press("Advanced Actions")
    await choose("Stop KMS")
    await inDialog("Stop KMS")
    await says("KMS service stopped successfully")
    await says("KMS server is configured but not running")
    assert.equal((await admin("GET", "/kms/keys")).status, 503)
    await press("Start KMS")
    await inDialog("Confirm")
    await says("KMS server is running and healthy")
    await rowSays("console-key", "Active")
  })
  await step("change a setting", async () => {
    await page.getByText("Advanced Settings").click()
    await page.locator("#timeoutSeconds").fill("20")
    await press("Reconfigure KMS")
    await says("KMS configuration updated successfully")
    const { config_summary: summary } = await status()
    assert.equal(summary.timeout_seconds, 20)
    assert.equal(summary.default_key_id, "console-default")
  })
  await step("create a bucket", async () => {
    await link("Browser").click()
    await press("Create Bucket")
    await page.locator("#bucket-name").fill("console-bucket")
    await press("Create")
    await says("Create Success")
    await link("console-bucket").waitFor()
    assert.match((await call("GET", "/")).body, /<Name>console-bucket<\/Name>/)
  })
  const encryption = () => call("GET", "/console-bucket?encryption")
  await step("open the bucket's settings", async () => {
    await row("console-bucket").getByRole("button", { name: "Settings" }).click()
    await page.getByRole("button", { name: "Edit Encryption" }).waitFor()
    assert.equal((await encryption()).status, 404)
  })
  await step("encrypt the bucket with a key", async () => {
    await press("Edit Encryption")
    await pick("#bucket-encryption-type", "SSE-KMS")
    await pick("#bucket-encryption-kms-key", "console-key")
    await press("Save Encryption")
    await says("Edit Success")
    await says("aws:kms")
    const { body } = await encryption()
    assert.match(body, /<SSEAlgorithm>aws:kms<\/SSEAlgorithm><KMSMasterKeyID>console-key<\/KMSMasterKeyID>/)
  })
  await step("encrypt the bucket without a key of its own", async () => {
    await press("Edit Encryption")
    await pick("#bucket-encryption-type", "SSE-S3")
    await press("Save Encryption")
    await says("AES256")
    assert.match((await encryption()).body, /<SSEAlgorithm>AES256<\/SSEAlgorithm>/)
  })
  await step("stop encrypting the bucket", async () => {
    await press("Edit Encryption")
    await pick("#bucket-encryption-type", "Disabled")
    await press("Save Encryption")
    await page.locator("#data-protection").getByText("Not configured", { exact: true }).first().waitFor()
    assert.equal((await encryption()).status, 404)
  })
}

/** A server that `--start` configured, and a caller whose access key expires and who is not root. */
async function someoneElse(keyway) {
  const given = await keyway.accessKey("kms-admin", "--expires-in", "3600")
  const { access_key_id, secret_access_key, session_token } = given
  await open(keyway, "session")
  await step("choose another server", () => chooseServer(keyway.url))
  await step("sign in with a session token", () =>
    signIn({ accessKeyId: access_key_id, secretAccessKey: secret_access_key, sessionToken: session_token }),
  )
  await step("open the KMS page of a service that runs", async () => {
    await link("SSE Settings").click()
    await says("KMS server is running and healthy")
    await says("No KMS keys found")
  })
  await step("reconfigure what --start configured", async () => {
    await page.locator("#defaultKeyId").fill("some-key")
    await press("Reconfigure KMS")
    await says("KMS configuration updated successfully")
    const { body } = await keyway.admin("GET", "/kms/service-status")
    assert.equal(body.config_summary.default_key_id, "some-key")
  })
}

/** A service whose keys a Vault wraps. */
async function withVault(keyway, vault) {
  const { admin, root } = keyway
  const status = async () => (await admin("GET", "/kms/service-status")).body
  await open(keyway, "vault")
  await step("choose a server for a Vault", () => chooseServer(keyway.url))
  await step("sign in to it", () => signIn(root))
  await step("open its KMS page", async () => {
    await link("SSE Settings").click()
    await says("KMS server is not configured")
  })
  await step("configure a Vault", async () => {
    await page.locator("#vaultAddress").fill(vault.url)
    await page.locator("#vaultToken").fill(vault.token)
    await press("Save Configuration")
    await says("KMS configuration saved successfully")
    await says("Backend: VaultTransit")
    await says("Leave blank to keep the stored Vault token.")
  })
  await step("start with it", async () => {
    await press("Start KMS")
    await inDialog("Confirm")
    await says("KMS server is running and healthy")
    await says("No KMS keys found")
  })
  await step("create a key in it", async () => {
    await press("Create Key")
    await page.locator("#kms-key-name").fill("vault-key")
    await page.getByRole("dialog").getByRole("button", { name: "Create Key", exact: true }).click()
    await rowSays("vault-key", "Active")
    // Transit has wrapped it: there is a sealed copy in the KV engine.
    assert.deepEqual(await vault.list("secret/metadata/rustfs/kms/keys"), ["vault-key"])
  })
  await step("change a setting without the token", async () => {
    await page.getByText("Advanced Settings").click()
    await page.locator("#timeoutSeconds").fill("20")
    await press("Reconfigure KMS")
    await says("KMS configuration updated successfully")
    assert.equal((await status()).config_summary.timeout_seconds, 20)
    const sealed = await admin("POST", "/kms/generate-data-key", { key_id: "vault-key" })
    assert.equal(sealed.status, 200)
  })
  await step("choose a backend that is refused", async () => {
    await pick("#kmsBackend", "HashiCorp Vault KV2")
    await press("Reconfigure KMS")
    await page.getByText(/must be `local` or `vault`/).first().waitFor()
    assert.equal((await status()).config_summary.backend_type, "vault")
  })
}

/** Somebody whom the console shows no more than they may do. */
async function auditor(keyway) {
  const { access_key_id, secret_access_key } = await keyway.accessKey("kms-auditor")
  await open(keyway, "auditor")
  await step("choose a server as an auditor", () => chooseServer(keyway.url))
  await step("sign in as an auditor", async () => {
    await signIn({ accessKeyId: access_key_id, secretAccessKey: secret_access_key })
    await link("audited-bucket").waitFor()
    assert.equal(await page.getByRole("link", { name: "SSE Settings" }).count(), 0)
    assert.equal(await page.getByRole("button", { name: "Create Bucket" }).count(), 0)
  })
  await step("look at a bucket as an auditor", async () => {
    await row("audited-bucket").getByRole("button", { name: "Settings" }).click()
    await page.locator("#data-protection").getByText("Not configured", { exact: true }).first().waitFor()
    assert.equal(await page.getByRole("button", { name: "Edit Encryption" }).count(), 0)
  })
  await step("ask for the KMS page as an auditor", async () => {
    await page.goto(pages.url("/sse/"))
    await page.waitForURL("**/403/")
  })
}

const servers = []
const start = async (...options) => {
  servers.push(await startKeyway(binary, pages.origin, ...options))
  return servers.at(-1)
}
/** Takes a walk, to the end of its list. */
const whole = async (act, ...given) => {
  await act(...given)
  assert.equal(walk.next, walk.steps.length, "every step of the list was taken")
}
try {
  await whole(everything, await start())
  await whole(someoneElse, await start("--start"))
  const vault = await startVault(bao)
  servers.push(vault)
  await whole(withVault, await start(), vault)
  await whole(auditor, await start("--start"))
  console.log(`RustFS's console: ${done} steps`)
} catch (error) {
  console.error(`not ok ${done + 1} - ${walk?.steps[walk.next - 1]?.name ?? "start"}`)
  console.error(error)
  mkdirSync(target, { recursive: true })
  const screenshot = join(target, "failed.png")
  await page?.screenshot({ path: screenshot, fullPage: true }).then(
    () => console.error(`the page: ${screenshot}`),
    () => {},
  )
  console.error(servers.at(-1)?.log() ?? "no server was started")
  process.exitCode = 1
} finally {
  if (record) writeFileSync(record, JSON.stringify(recorded, null, 1))
  await browser.close()
  for (const server of servers) await server.stop()
  pages.close()
}
