// Preact with htm: templates without a build step. Whatever stands in ${…} becomes a text node or a property.
import { h, render, Fragment } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { useEffect, useMemo, useRef, useState, useCallback } from "./vendor/hooks.js";
export { Fragment, render };
export const html = htm.bind(h);
