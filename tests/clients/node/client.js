// Calls every kind of method with @grpc/grpc-js and prints what came of it as one JSON object.
//
// usage: client.js PROTOS ADDRESS AUTHORITY
// PROTOS are the folders of our .proto files, separated by colons.
'use strict';

const crypto = require('crypto');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [protos, address, authority] = process.argv.slice(2);
const MIB = 1024 * 1024;
// A call that hangs is what the tests look for: every call has this deadline unless it says otherwise.
const LIMIT = 30_000;

const definition = loader.loadSync(
  ['vbridge/test/v1/exercise.proto', 'vbridge/guest/v1/system.proto', 'vbridge/guest/v1/metrics.proto'],
  { includeDirs: protos.split(':'), keepCase: true, longs: Number, defaults: true, oneofs: true },
);
const { vbridge } = grpc.loadPackageDefinition(definition);
const options = {
  'grpc.default_authority': authority,
  'grpc.max_receive_message_length': 70 * MIB,
  'grpc.max_send_message_length': 70 * MIB,
  'grpc.enable_http_proxy': 0,
};
const credentials = grpc.credentials.createInsecure();
const exercise = new vbridge.test.v1.Exercise(address, credentials, options);

const sha256 = (...parts) => {
  const hash = crypto.createHash('sha256');
  parts.forEach((part) => hash.update(part));
  return hash.digest('hex');
};
const deadline = (milliseconds = LIMIT) => ({ deadline: Date.now() + milliseconds });
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const metadata = (prefix) => [
  { key: `${prefix}-text`, value: Buffer.from('plain') },
  { key: `${prefix}-text`, value: Buffer.from('second') },
  { key: `${prefix}-octets-bin`, value: Buffer.from([0, 1, 0xfe, 0xff]) },
];

// Metadata as lists by name; binary values in hexadecimal digits.
const values = (found) => {
  const map = {};
  for (const key of Object.keys(found.getMap())) {
    map[key] = found.get(key).map((value) => (Buffer.isBuffer(value) ? value.toString('hex') : value));
  }
  return map;
};
const failure = (error) => ({ code: error.code, message: error.details, trailers: values(error.metadata) });

// A unary call: resolves whether it succeeds or fails.
const call = (client, method, request, { sent = new grpc.Metadata(), limit = LIMIT } = {}) =>
  new Promise((resolve) => {
    const result = {};
    const started = client[method](request, sent, deadline(limit), (error, response) => {
      Object.assign(result, { error, response });
    });
    started.on('metadata', (headers) => Object.assign(result, { headers }));
    started.on('status', (status) => resolve({ ...result, status }));
  });

const must = async (...args) => {
  const result = await call(...args);
  if (result.error) throw result.error;
  return result.response;
};

// All messages of a stream, and how it ended. The status may come while messages still wait to be read.
const all = async (stream) => {
  const messages = [];
  let error;
  stream.on('data', (message) => messages.push(message));
  stream.on('error', (failed) => (error = failed));
  const [status] = await Promise.all([
    new Promise((resolve) => stream.on('status', resolve)),
    new Promise((resolve) => stream.on('end', resolve)),
  ]);
  return { messages, error, status };
};

async function unary() {
  const payload = Buffer.from(Array.from({ length: 256 * 40 }, (_, index) => index % 256));
  const answer = { headers: metadata('x-head'), trailers: metadata('x-tail') };
  const { error, response, headers, status } = await call(exercise, 'Unary', { payload, answer });
  if (error) throw error;
  return { same: payload.equals(response.payload), headers: values(headers), trailers: values(status.metadata) };
}

async function unaryFailure() {
  const answer = { code: 9, message: 'no: 100 % “sure”', details: Buffer.from([8, 9]), trailers: metadata('x-tail') };
  return failure((await call(exercise, 'Unary', { answer })).error);
}

async function clientStream() {
  const parts = Array.from({ length: 100 }, (_, index) => Buffer.alloc(index * 50, index));
  const response = await new Promise((resolve, reject) => {
    const stream = exercise.ClientStream(deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
    parts.forEach((payload) => stream.write({ payload }));
    stream.end();
  });
  return {
    count: response.count,
    bytes: response.bytes,
    same: response.sha256.toString('hex') === sha256(...parts),
  };
}

async function serverStream() {
  const { messages } = await all(exercise.ServerStream({ count: 200, size: 1000, seed: 1 }, deadline()));
  return {
    indices: messages.length === 200 && messages.every((message, index) => message.index === index),
    sha256: sha256(...messages.map((message) => message.payload)),
  };
}

async function serverStreamFailure() {
  const answer = { code: 10, message: 'enough', trailers: metadata('x-tail') };
  // grpc-js drops messages that it has not handed over when a failure comes: the failure is given time.
  const interval = { seconds: 0, nanos: 100_000_000 };
  const { messages, error } = await all(exercise.ServerStream({ count: 3, size: 1, interval, answer }, deadline()));
  return { count: messages.length, ...failure(error) };
}

async function bidi() {
  const stream = exercise.Bidi(deadline());
  // Without a message sent: this would hang if headers came with the first one.
  const headers = await new Promise((resolve) => stream.once('metadata', resolve));
  let next = 0;
  const send = () => (next < 50 ? stream.write({ payload: Buffer.from(`message ${next++}`) }) : stream.end());
  const ended = all(stream);
  // The next message is sent only when the one before has come back.
  stream.on('data', send);
  send();
  const { messages, status } = await ended;
  return {
    headers_first: headers.get('x-exercise-begun').length === 1,
    same: messages.length === 50 && messages.every(({ payload }, index) => payload.equals(Buffer.from(`message ${index}`))),
    code: status.code,
  };
}

async function echoMetadata() {
  const sent = new grpc.Metadata();
  sent.add('x-one', '1');
  sent.add('x-many', 'a');
  sent.add('x-many', 'b');
  sent.add('x-octets-bin', Buffer.from([0, 0xff]));
  const response = await must(exercise, 'EchoMetadata', {}, { sent });
  const seen = {};
  for (const { key, value } of response.metadata) {
    (seen[key] ??= []).push(key.endsWith('-bin') ? value.toString('hex') : value.toString());
  }
  return { 'x-one': seen['x-one'], 'x-many': seen['x-many'], 'x-octets-bin': seen['x-octets-bin'] };
}

async function counted(id, good) {
  const until = Date.now() + LIMIT;
  for (;;) {
    const counters = await must(exercise, 'Counters', { id });
    if (good(counters)) return counters;
    if (Date.now() > until) throw new Error(`${id}: the counters are ${JSON.stringify(counters)}`);
    await pause(20);
  }
}

async function ended(id) {
  const { started, cancelled } = await counted(id, (counters) => counters.active === 0);
  return { started, cancelled };
}

async function passedDeadline(id) {
  const seen = await must(exercise, 'Deadline', {}, { limit: 20_000 });
  const started = Date.now();
  const { error } = await call(exercise, 'Hang', { id }, { limit: 500 });
  const seconds = (Date.now() - started) / 1000;
  return { seen_ms: seen.milliseconds, code: error.code, seconds, ...(await ended(id)) };
}

async function cancel(id) {
  let hanging;
  const over = new Promise((resolve) => {
    hanging = exercise.Hang({ id }, deadline(), (error) => resolve(error));
  });
  await counted(id, (counters) => counters.active === 1);
  hanging.cancel();
  const error = await over;
  return { code: error.code, ...(await ended(id)) };
}

async function compressed() {
  const client = new vbridge.test.v1.Exercise(address, credentials, {
    ...options,
    'grpc.default_compression_algorithm': 2,
  });
  const payload = Buffer.alloc(200_000, 7);
  const response = await must(client, 'Unary', { payload });
  client.close();
  return { same: payload.equals(response.payload) };
}

async function large() {
  const payload = Buffer.alloc(64 * MIB, 0x55);
  const request = { payload, response_size: 64 * MIB, seed: 2 };
  const response = await must(exercise, 'BigMessage', request, { limit: 120_000 });
  return {
    received: response.received,
    same: response.sha256.toString('hex') === sha256(payload),
    size: response.payload.length,
    sha256: sha256(response.payload),
  };
}

async function unknown() {
  const raw = new grpc.Client(address, credentials, options);
  const same = (bytes) => bytes;
  const code = await new Promise((resolve) => {
    const path = '/vbridge.test.v1.Exercise/Unknown';
    raw.makeUnaryRequest(path, same, same, Buffer.alloc(0), new grpc.Metadata(), deadline(), (error) => resolve(error.code));
  });
  raw.close();
  return { code };
}

async function system() {
  const client = new vbridge.guest.v1.System(address, credentials, options);
  const info = await must(client, 'GetInfo', {});
  const ping = await must(client, 'Ping', { payload: Buffer.from('ping') });
  client.close();
  return { kernel: info.kernel.name, cpus: info.cpu_count, ping: ping.payload.toString() };
}

async function metrics() {
  const client = new vbridge.guest.v1.Metrics(address, credentials, options);
  const stream = client.Watch({ interval: { seconds: 0, nanos: 200_000_000 } }, deadline());
  const samples = [];
  stream.on('error', () => {});
  await new Promise((resolve) => {
    stream.on('data', ({ sample }) => samples.push(sample) === 5 && resolve());
    stream.on('status', resolve);
  });
  stream.cancel();
  client.close();
  const uptimes = samples.map(({ uptime }) => uptime.seconds * 1e9 + uptime.nanos);
  return {
    sequences: samples.slice(0, 5).map(({ sequence }) => sequence),
    uptime_grows: uptimes.every((uptime, index) => index === 0 || uptimes[index - 1] < uptime),
    memory: samples.every(({ memory }) => memory.total_bytes > 0),
    busy: samples.slice(1, 5).map(({ cpu }) => cpu._busy_percent === 'busy_percent'),
  };
}

async function main() {
  const name = `node-${Date.now()}`;
  const result = {
    unary: await unary(),
    unary_failure: await unaryFailure(),
    client_stream: await clientStream(),
    server_stream: await serverStream(),
    server_stream_failure: await serverStreamFailure(),
    bidi: await bidi(),
    echo_metadata: await echoMetadata(),
    deadline: await passedDeadline(`${name}-deadline`),
    cancel: await cancel(`${name}-cancel`),
    compressed: await compressed(),
    large: await large(),
    unknown: await unknown(),
    system: await system(),
    metrics: await metrics(),
  };
  exercise.close();
  console.log(JSON.stringify(result));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
