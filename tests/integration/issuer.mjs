// An OAuth 2 authorization server for tests: npm's oidc-provider on a free port of 127.0.0.1, for two clients.
//
//   node issuer.mjs FOLDER-WITH-node_modules
//
// Prints its address, then one line for each line on standard input, which has it sign with a new key.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const place = createRequire(`${process.argv[2]}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(place));

const keys = [];
let answer;
const server = createServer((request, response) => answer(request, response));

function client(id, secret, grants) {
  return {
    client_id: id,
    client_secret: secret,
    grant_types: grants,
    redirect_uris: [],
    response_types: [],
  };
}

function rotate() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  keys.unshift({ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' });
  const provider = new Provider(`http://127.0.0.1:${server.address().port}`, {
    clients: [client('meter-7', 'meter-secret', ['client_credentials']), client('mtserver', 'ask-secret', [])],
    jwks: { keys },
    scopes: ['collect'],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          scope: 'collect',
          audience: 'collector',
          accessTokenFormat: resource.endsWith('opaque') ? 'opaque' : 'jwt',
          accessTokenTTL: 600,
        }),
      },
    },
  });
  answer = provider.callback();
}

server.listen(0, '127.0.0.1', () => {
  rotate();
  console.log(`http://127.0.0.1:${server.address().port}`);
  createInterface({ input: process.stdin }).on('line', () => {
    rotate();
    console.log('rotated');
  });
});
