export { Terminal } from "@xterm/headless";
