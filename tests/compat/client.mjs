// The official JavaScript client, as a program uses it. One call, its result on standard output as JSON:
// node client.mjs '{"key", "baseUrl", "endpoint", "call", "args"}'
console.log = () => {}; // The client prints its polls, with what it finds here when it is imported.
const { default: runpodSdk } = await import("runpod-sdk");

const { key, baseUrl, endpoint, call, args } = JSON.parse(process.argv[2]);
const made = runpodSdk(key, { baseUrl }).endpoint(endpoint)[call](...args);
const answer = call === "stream" ? await Array.fromAsync(made) : await made;
process.stdout.write(JSON.stringify(answer));
