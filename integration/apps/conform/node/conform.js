// What a Node program does with sockets, one line of output for each thing: "ROW/CHECK: RESULT".
// integration/matrix_test.go has the results that are wanted. Arguments: the port of a TCP and of a UDP server of the
// laptop, and a port below 1024 of its own.
'use strict';
const { fork } = require('child_process');
const cluster = require('cluster');
const dgram = require('dgram');
const dns = require('dns').promises;
const { once } = require('events');
const http = require('http');
const net = require('net');
const os = require('os');

const pod = '192.0.2.10', orders = 'orders.shop.svc.cluster.local', ledger = '198.51.100.22', gone = '203.0.113.2';
const patience = 30000;

const say = (check, result) => console.log(`${check}: ${result}`);

// attempt says what f returns, or the code of its error.
async function attempt(check, f) {
  try {
    say(check, await f());
  } catch (e) {
    say(check, e.code || e);
  }
}

async function dial(port, host) {
  const c = net.connect({ port, host, timeout: patience });
  c.on('timeout', () => c.destroy(new Error('no answer')));
  await once(c, 'connect');
  return c;
}

// hear returns all that c has to say, after text and its end if there is one.
async function hear(c, text) {
  if (text !== undefined) c.end(text);
  let said = '';
  for await (const part of c) said += part;
  return said.trim();
}

const who = async () => (await hear(await dial(11, ledger))).split(':')[0];

async function parallel() {
  const echo = async i => (await hear(await dial(7, 'ledger'), `number ${i}`)) === `number ${i}`;
  const good = (await Promise.all(Array.from({ length: 50 }, (_, i) => echo(i)))).filter(Boolean);
  return `${good.length} of 50`;
}

async function get() {
  const [r] = await once(http.get('http://orders/path'), 'response');
  let body = '';
  for await (const part of r) body += part;
  return JSON.parse(body).path;
}

async function reply(s) {
  const [message] = await once(s, 'message', { signal: AbortSignal.timeout(patience) });
  return message.toString();
}

async function connected() {
  const s = dgram.createSocket('udp4');
  s.connect(7, ledger);
  await once(s, 'connect');
  s.send('hi');
  const said = await reply(s);
  s.close();
  return said;
}

async function both(port) {
  const s = dgram.createSocket('udp4');
  s.send('far', 7, ledger);
  const far = await reply(s);
  s.send('near', port, '127.0.0.1');
  const near = await reply(s);
  s.close();
  return `${far}, ${near}`;
}

// welcome tells the test where to connect to, and greets it.
async function welcome(check, options) {
  const server = net.createServer();
  server.listen({ port: 0, ...options });
  await once(server, 'listening');
  say(check, `at ${server.address().port}`);
  const [c] = await once(server, 'connection', { signal: AbortSignal.timeout(patience) });
  c.end('hello');
  server.close();
  return 'greeted';
}

// own listens, and connects to itself.
async function own(port) {
  const server = net.createServer(c => c.end('hello'));
  server.listen({ port, host: pod });
  await once(server, 'listening');
  const said = await hear(await dial(server.address().port, pod));
  server.close();
  return said;
}

async function inUse() {
  const a = net.createServer().listen(0, '127.0.0.1'), b = net.createServer();
  await once(a, 'listening');
  try {
    b.listen(a.address().port, '127.0.0.1');
    await once(b, 'listening');
  } finally {
    a.close();
    b.close();
  }
  return 'ok';
}

// descriptors opens more sockets than may be.
async function descriptors() {
  const sockets = [];
  try {
    for (let i = 0; i < 300; i++) {
      const s = dgram.createSocket('udp4');
      sockets.push(s);
      s.bind(0, '127.0.0.1');
      await once(s, 'listening');
    }
  } finally {
    await Promise.all(sockets.map(s => new Promise(done => s.close(done))));
  }
  return 'ok';
}

// prefork has two workers share a listener, each of which serves one connection.
async function prefork() {
  cluster.setupPrimary({ args: ['worker'] });
  cluster.schedulingPolicy = cluster.SCHED_NONE; // the workers accept themselves
  const workers = [cluster.fork(), cluster.fork()];
  const [[, at]] = await Promise.all(workers.map(w => new Promise(done => w.on('listening', a => done([w, a])))));
  let served = 0;
  for (let i = 0; i < 2; i++) served += (await hear(await dial(at.port, '127.0.0.1'))) === 'w';
  await Promise.all(workers.map(w => (w.kill(), once(w, 'exit'))));
  return `${served} served`;
}

async function spawn() {
  const child = fork(__filename, ['child'], { silent: true });
  let said = '';
  for await (const part of child.stdout) said += part;
  return said.trim();
}

const interfaces = () => Object.values(os.networkInterfaces()).flat().some(a => a.address === pod) ? pod : 'others';

async function ownAddress() {
  const c = await dial(7, ledger);
  const a = c.localAddress;
  c.destroy();
  return a;
}

async function main(tcp, udp, low) {
  await attempt('tcp/50', parallel);
  await attempt('tcp/http', get);
  await attempt('names/libc', async () => (await dns.lookup('orders')).address);
  await attempt('names/c-ares', async () => (await dns.resolve4(orders)).join(' '));
  await attempt('udp/connected', connected);
  await attempt('udp/both', () => both(udp));
  for (const [check, host] of [['127.0.0.1', '127.0.0.1'], ['localhost', 'localhost'], ['::1', '::1'], ['mapped', '::ffff:127.0.0.1']])
    await attempt('local/' + check, async () => hear(await dial(tcp, host)));
  for (const host of ['127.0.0.1', '0.0.0.0', '::']) await attempt('listen/' + host, () => welcome('listen/' + host, { host }));
  await attempt('listen/v6only', () => welcome('listen/v6only', { host: '::', ipv6Only: true }));
  await attempt('listen/pod', () => own(0));
  await attempt('listen/low', () => own(low));
  await attempt('source/interfaces', interfaces);
  await attempt('source/own', ownAddress);
  await attempt('source/seen', who);
  await attempt('children/spawn', spawn);
  await attempt('children/prefork', prefork);
  await attempt('errors/in use', inUse);
  await attempt('errors/refused', () => dial(81, ledger));
  await attempt('errors/refused here', () => dial(1, '127.0.0.1'));
  await attempt('errors/unreachable', () => dial(80, gone));
  await attempt('errors/descriptors', descriptors);
}

if (cluster.isWorker) net.createServer(c => c.end('w')).listen(0, '127.0.0.1');
else if (process.argv[2] === 'child') who().then(console.log, console.log);
else main(...process.argv.slice(2).map(Number));
