// A second verifier, on @sigstore/verify and nothing of ours: reads one JSON an input line, answers "ok" or "bad".
//
//   {"name", "public": base64 of DER, "keyId": hex of 4 bytes, "note", "leaf", "index", "path": [base64]}
//
// It is ok if the log signed the note, and the leaf is where the path says under the note's root.
"use strict";
const { createPublicKey } = require("node:crypto");
const { createInterface } = require("node:readline");
const inside = require("node:path").join(process.argv[2], "node_modules", "@sigstore", "verify", "dist", "tlog");
const { verifyCheckpoint } = require(`${inside}/checkpoint.js`);
const { verifyMerkleInclusion } = require(`${inside}/merkle.js`);

createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  const log = {
    logID: Buffer.from(asked.keyId, "hex"),
    publicKey: createPublicKey({ key: Buffer.from(asked.public, "base64"), format: "der", type: "spki" }),
    baseURL: asked.name,
    validFor: { start: new Date(0), end: new Date(8.64e15) },
  };
  const entry = {
    canonicalizedBody: Buffer.from(asked.leaf, "base64"),
    inclusionProof: {
      logIndex: asked.index,
      hashes: asked.path.map((hash) => Buffer.from(hash, "base64")),
      checkpoint: { envelope: asked.note },
    },
  };
  try {
    verifyMerkleInclusion(entry, verifyCheckpoint(entry, [log]));
    console.log("ok");
  } catch {
    console.log("bad");
  }
});
