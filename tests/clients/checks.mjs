// Shared by the scripts of both Node.js clients.

import assert from "node:assert/strict";

/** Prints one JSON line for a check that held. */
export function held(check) {
  console.log(JSON.stringify({ check }));
}

/** Expects this error code, and a message that a person can read. */
export async function refused(code, call) {
  const error = await call().then(
    () => assert.fail(`${code} was due`),
    (error) => error,
  );
  assert.equal(error.code ?? error.name, code, String(error.stack));
  assert.ok(error.message.length > code.length, error.message);
  return error;
}
