// Node's ws as the client of a WebSocket echo server: node node_ws.js URL
// One line per test; exits 1 if one failed. run-node-ws.py runs it.
'use strict';

const crypto = require('node:crypto');
const WebSocket = require('ws');

const url = process.argv[2];
const MIB = 1 << 20;
const options = { perMessageDeflate: false, maxPayload: 64 * MIB };

function open(more = {}, target = '') {
    return new Promise((resolve, reject) => {
        const ws = new WebSocket(url + target, more.protocols || [], { ...options, ...more });
        ws.once('open', () => resolve(ws));
        ws.once('error', reject);
    });
}

function next(ws) {
    return new Promise((resolve, reject) => {
        const onMessage = (data, isBinary) => { done(); resolve({ data, isBinary }); };
        const onClose = (code) => { done(); reject(new Error(`closed with ${code}`)); };
        function done() { ws.off('message', onMessage); ws.off('close', onClose); }
        ws.on('message', onMessage);
        ws.on('close', onClose);
    });
}

function closed(ws) {
    return new Promise((resolve) => {
        ws.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
}

function check(condition, what) {
    if (!condition) throw new Error(what);
}

async function echo(ws, data, how = {}) {
    const answer = next(ws);
    ws.send(data, how);
    const { data: got, isBinary } = await answer;
    check(Buffer.from(data).equals(got), `${data.length} came back as ${got.length} others`);
    check(isBinary === (typeof data !== 'string'), 'text and binary are mixed up');
}

async function finish(ws) {
    const end = closed(ws);
    ws.close(1000, 'done');
    const { code } = await end;
    check(code === 1000, `close code ${code}`);
}

const tests = {
    async test_text_and_binary() {
        const ws = await open();
        for (const size of [0, 1, 125, 126, 127, 4096, 65535, 65536]) {
            await echo(ws, crypto.randomBytes(size));
            await echo(ws, 'é'.repeat(size / 2));
        }
        await finish(ws);
    },

    async test_fragments_with_pings_in_between() {
        const ws = await open();
        let pongs = 0;
        ws.on('pong', () => { pongs++; });
        for (const binary of [false, true]) {
            const parts = Array.from({ length: 40 }, (_, i) => (binary
                ? crypto.randomBytes(i * 50) : `part ${i} é `));
            const answer = next(ws);
            parts.forEach((part, i) => {
                ws.send(part, { binary, fin: i === parts.length - 1 });
                if (i < parts.length - 1) ws.ping(`between ${i}`);
            });
            const { data } = await answer;
            check(Buffer.concat(parts.map((p) => Buffer.from(p))).equals(data), 'other bytes');
        }
        await echo(ws, 'after');
        check(pongs === 78, `${pongs} pongs, not 78`);
        await finish(ws);
    },

    async test_16_mib() {
        const ws = await open();
        await echo(ws, crypto.randomBytes(16 * MIB));
        await echo(ws, 'é'.repeat(8 * MIB));
        await finish(ws);
    },

    async test_over_the_limit_gets_1009() {
        const ws = await open();
        ws.on('error', () => {}); // a reset may cut the rest of our own message off
        const end = closed(ws);
        ws.send(Buffer.alloc(16 * MIB + 1));
        const { code } = await end;
        check(code === 1009, `close code ${code}`);
    },

    async test_1000_connections_at_once() {
        const all = [];
        for (let batch = 0; batch < 10; batch++) {
            all.push(...await Promise.all(Array.from({ length: 100 }, () => open())));
        }
        await Promise.all(all.map((ws, i) => echo(ws, `connection ${i}`)));
        await Promise.all(all.map((ws, i) => echo(ws, crypto.randomBytes(i))));
        await Promise.all(all.map(finish));
    },

    async test_order_of_5000_messages() {
        const ws = await open();
        const count = 5000;
        let expected = 0;
        const all = new Promise((resolve, reject) => {
            ws.on('message', (data) => {
                if (!data.toString().startsWith(`${expected}:`)) reject(new Error('order'));
                if (++expected === count) resolve();
            });
            ws.once('close', () => reject(new Error('closed')));
        });
        for (let i = 0; i < count; i++) ws.send(`${i}:${'x'.repeat((i * 31) % 2000)}`);
        await all;
        await finish(ws);
    },

    async test_close_codes_and_reasons() {
        for (const [code, reason] of [[1000, ''], [1001, 'bye'], [3999, 'é'.repeat(61)],
            [4000, 'ours']]) {
            const ws = await open();
            const end = closed(ws);
            ws.close(code, reason);
            const got = await end;
            check(got.code === code, `sent ${code}, got ${got.code}`);
        }
        const ws = await open();
        const end = closed(ws);
        ws.close();
        const { code } = await end;
        check(code === 1005 || code === 1000, `an empty close came back as ${code}`);
    },

    async test_ping_and_pong() {
        const ws = await open();
        for (const payload of ['', 'x', 'y'.repeat(125)]) {
            const pong = new Promise((resolve) => { ws.once('pong', resolve); });
            ws.ping(payload);
            check((await pong).toString() === payload, `pong for ${payload.length} bytes`);
        }
        ws.pong('nobody asked');
        await echo(ws, 'after');
        await finish(ws);
    },

    async test_offers_are_declined() {
        // ws itself fails a connection whose server agrees on nothing of an offer of
        // subprotocols, as browsers do; what it says proves that the server agreed on none.
        const ws = await open({ perMessageDeflate: true });
        check(ws.extensions === '', `extension ${ws.extensions}`);
        check(ws.protocol === '', `subprotocol ${ws.protocol}`);
        await echo(ws, 'x'.repeat(5000));
        await finish(ws);
        const refused = await open({ protocols: ['chat'] }).catch((error) => error.message);
        check(/no subprotocol/.test(refused), `subprotocol: ${refused}`);
    },

    async test_terminated_clients() {
        for (let i = 0; i < 100; i++) {
            const ws = await open();
            ws.on('error', () => {});
            ws.send(crypto.randomBytes(i * 1000));
            ws.terminate();
        }
        const ws = await open({}, '/path?query=1');
        await echo(ws, 'still there');
        await finish(ws);
    },
};

async function main() {
    let failed = 0;
    const only = process.env.RINGWS_ONLY || '';
    for (const [name, test] of Object.entries(tests)) {
        if (!name.includes(only)) continue;
        const start = Date.now();
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error('not done after 60 s')), 60000);
        });
        try {
            await Promise.race([test(), late]);
            console.log(`  ok   ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
        } catch (error) {
            failed++;
            console.log(`  FAIL ${name}: ${error.message}`);
        } finally {
            clearTimeout(timer);
        }
    }
    process.exit(failed ? 1 : 0);
}

main();
