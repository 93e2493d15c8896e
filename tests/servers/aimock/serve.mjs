// Serves fixtures.json on a free port of this machine, prints the address, and ends when its standard input does.
// Run as: node serve.mjs FOLDER, the folder being where the package is installed.
import { fileURLToPath, pathToFileURL } from "node:url";

const [, , folder] = process.argv;
const { LLMock } = await import(pathToFileURL(`${folder}/node_modules/@copilotkit/aimock/dist/index.js`));
const mock = new LLMock({ port: 0, host: "127.0.0.1", chunkSize: 8, logLevel: "silent" });
mock.loadFixtureFile(fileURLToPath(new URL("fixtures.json", import.meta.url)));
await mock.start();
console.log(mock.url);
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
