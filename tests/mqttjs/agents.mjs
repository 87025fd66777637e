// Devices as the note's agent is one: each registers, and connects the moment it has its answer.
// mqtt.js ends a client for ever after one refused CONNACK. Prints what came of each first connect.
import mqtt from "mqtt";

const { url, key, count } = JSON.parse(process.argv[2]);

async function registered(uuid) {
  const answer = await fetch(`${url}/api/v1/device/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({
      uuid,
      deviceName: uuid,
      deviceType: "raspberry-pi-4",
      deviceApiKey: `the-key-of-${uuid}`,
    }),
  });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
  return (await answer.json()).mqtt;
}

function connected(uuid, told) {
  const options = {
    username: told.username,
    password: told.password,
    clientId: `device_${uuid}`,
    clean: true,
    reconnectPeriod: 5000,
  };
  const client = mqtt.connect(told.broker, options);
  return new Promise((resolve) => {
    client.once("connect", () => resolve("connected"));
    client.once("error", (error) => resolve(`refused: ${error.message}`));
    client.once("close", () => resolve("closed"));
  }).finally(() => client.endAsync(true));
}

async function arrives(uuid) {
  try {
    return await connected(uuid, await registered(uuid));
  } catch (error) {
    return `failed: ${error.message}`;
  }
}

const uuids = Array.from({ length: count }, (_, number) => `js-${number}`);
console.log(JSON.stringify(await Promise.all(uuids.map(arrives))));
