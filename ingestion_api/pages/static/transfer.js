// Uploads a file piece by piece, as in draft-ietf-httpbis-resumable-upload. Only one piece is in memory at a time.
import { address, Failure, send } from "./shared/api.js";

const PIECE_BYTES = 8 * 1024 * 1024;
const PIECE_SECONDS = 600;
const RETRY_MS = 3000;

/** Make an import without its body yet, and return it. */
export async function createImport(file, headers, parameters) {
  const response = await send(address("imports", parameters), {
    method: "POST",
    headers: { ...headers, "Upload-Complete": "?0", "Upload-Length": String(file.size) },
  });
  return response.json();
}

/**
 * Send what the server does not have yet of a file.
 *
 * Calls `onProgress(bytes)` after each piece. Retries after an outage; ends when `signal` is aborted.
 * Throws a Failure if a retry cannot help.
 */
export async function sendRest(id, file, onProgress, signal) {
  const path = `imports/${encodeURIComponent(id)}`;
  while (!signal.aborted) {
    try {
      let offset = await readOffset(path, signal);
      onProgress(offset);
      while (offset < file.size) {
        const end = Math.min(file.size, offset + PIECE_BYTES);
        await sendPiece(path, file, offset, end, signal);
        offset = end;
        onProgress(offset);
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      const passes = error.status === 0 || error.status === 408 || error.status >= 500 || error.status === 429;
      const isBehind = error.code === "upload_offset_mismatch";
      if (error.code === "upload_completed") return;
      if (!(error instanceof Failure) || !(passes || isBehind)) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function readOffset(path, signal) {
  const response = await send(address(path), { method: "HEAD", signal });
  return Number(response.headers.get("Upload-Offset"));
}

function sendPiece(path, file, offset, end, signal) {
  return send(address(path), {
    method: "PATCH",
    headers: {
      "Content-Type": "application/partial-upload",
      "Upload-Offset": String(offset),
      "Upload-Complete": end === file.size ? "?1" : "?0",
    },
    body: file.slice(offset, end),
    seconds: PIECE_SECONDS,
    signal,
  });
}

// Files whose upload is under way, by the import's id. A reload loses them: then the user chooses the file again.
const files = new Map();

/** Remember the file of an import while this tab stays open. */
export const keepFile = (id, file) => files.set(id, file);

/** Return the file of an import, or undefined after a reload. */
export const findFile = (id) => files.get(id);
