// Serves the console's static export, as any static web server does.

import { createReadStream, existsSync, readFileSync, statSync } from "node:fs"
import { createServer } from "node:http"
import { extname, join, normalize } from "node:path"

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".ico": "image/x-icon",
  ".js": "text/javascript",
  ".json": "application/json",
  ".map": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
  ".woff": "font/woff",
  ".woff2": "font/woff2",
}

const isFile = (path) => existsSync(path) && statSync(path).isFile()

/** The path that the export was built to be served below, as its pages name their scripts. */
function basePath(folder) {
  for (const page of ["index.html", "rustfs/console/index.html"]) {
    const file = join(folder, page)
    const found = isFile(file) && /(?:src|href)="([^"]*)\/_next\//.exec(readFileSync(file, "utf8"))
    if (found) return found[1]
  }
  throw new Error(`${folder} is no static export of the console: it has no index.html that loads /_next/`)
}

/** Serves `folder` on a free port of loopback. */
export async function servePages(folder) {
  const base = basePath(folder)
  const find = (path) => {
    // Some exports have their files below the base path too, others do not.
    const below = path.startsWith(base) ? path.slice(base.length) : path
    for (const name of [path, below]) {
      const file = normalize(join(folder, name))
      if (!file.startsWith(normalize(folder))) continue
      const found = [file, `${file}.html`, join(file, "index.html")].find(isFile)
      if (found) return found
    }
  }
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost")
    const found = find(decodeURIComponent(pathname))
    const file = found ?? join(folder, "404.html")
    if (!isFile(file)) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(found ? 200 : 404, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" })
    createReadStream(file).pipe(response)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  // The host name differs from Keyway's, so the browser treats them as two sites.
  const origin = `http://localhost:${server.address().port}`
  return { origin, url: (page) => `${origin}${base}${page}`, close: () => server.close() }
}
