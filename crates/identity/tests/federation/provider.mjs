// An OpenID Connect provider for tests: `oidc-provider`, on a port of its own, which it prints.
//
//   node provider.mjs DIRECTORY-OF-NODE-MODULES REDIRECT-URI [CERTIFICATE KEY]
//
// With a certificate it is one of https, whose port it prints first; tests may still ask it by http.
// Users are `ada` and `eve`; whoever has the password `password of NAME`, or comes by a browser with `login_hint=NAME`, is NAME.
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { pathToFileURL } from 'node:url';
import path from 'node:path';
import { generateKeyPairSync } from 'node:crypto';

const [modules, redirect, certificate, key_file] = process.argv.slice(2);
const library = pathToFileURL(path.join(modules, 'node_modules/oidc-provider/lib/index.js'));
const { default: Provider, errors } = await import(library);

const key = (id, kind, options) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }), kid: id, use: 'sig',
});

const people = {
  ada: { name: 'Ada Lovelace', email: 'ada@example.org', preferred_username: 'ada', groups: ['staff', 'admins'] },
  eve: { name: 'Eve', email: 'eve@example.org', preferred_username: 'eve', groups: ['guests'] },
};

const listening = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server)));
const plain = await listening(http.createServer());
const secure = certificate && (await listening(https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key_file) })));
const servers = [secure, plain].filter(Boolean);
{
  const issuer = `${secure ? 'https' : 'http'}://127.0.0.1:${servers[0].address().port}`;
  const provider = new Provider(issuer, {
    jwks: { keys: [key('r', 'rsa', { modulusLength: 2048 }), key('e', 'ec', { namedCurve: 'P-256' })] },
    cookies: { keys: ['of a test'] },
    clients: [
      {
        client_id: 'cloud', client_secret: 'secret of cloud', redirect_uris: [redirect],
        grant_types: ['authorization_code', 'client_credentials', 'password'],
      },
      { client_id: 'other', client_secret: 'secret of other', redirect_uris: [redirect], grant_types: ['authorization_code', 'client_credentials'] },
    ],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'], email: ['email'] },
    scopes: ['openid', 'profile', 'email'],
    pkce: { required: () => true },
    findAccount: (ctx, id) => (people[id] ? { accountId: id, claims: () => ({ sub: id, ...people[id] }) } : undefined),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        // `cloud` gets tokens that speak for themselves, anything else those that only we can read.
        defaultResource: (ctx) => ctx.oidc.body?.resource,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({ scope: 'openid api', audience: resource, accessTokenTTL: 300, accessTokenFormat: 'jwt' }),
      },
    },
    extraTokenClaims: (ctx, token) => (token.accountId ? { ...people[token.accountId], ...token.known } : { groups: ['robots'] }),
    ttl: { AccessToken: 300, ClientCredentials: 300, IdToken: 300, Session: 300, Grant: 300, Interaction: 300 },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  });

  // A login with a password, as the clients of clouds use it.
  const parameters = ['username', 'password', 'scope', 'resource', 'known'];
  provider.registerGrantType('password', async (ctx, next) => {
    const { username, password, resource, known } = ctx.oidc.params;
    if (!people[username] || password !== `password of ${username}`) throw new errors.InvalidGrant('wrong password');
    const grant = new provider.Grant({ accountId: username, clientId: ctx.oidc.client.clientId });
    grant.addOIDCScope('openid profile email');
    const token = new provider.AccessToken({
      accountId: username, client: ctx.oidc.client, grantId: await grant.save(), gty: 'password', scope: 'openid', claims: {},
    });
    // A test may say what else is known of somebody.
    token.known = JSON.parse(known ?? '{}');
    if (resource) token.resourceServer = new provider.ResourceServer(resource, { scope: 'openid', audience: resource, accessTokenTTL: 300, accessTokenFormat: 'jwt' });
    ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: token.tokenType };
    await next();
  }, parameters);

  // Nobody types here: who is hinted at is logged in and agrees.
  const callback = provider.callback();
  const answer = async (request, response) => {
    if (!request.url.startsWith('/interaction/')) return callback(request, response);
    try {
      const { params } = await provider.interactionDetails(request, response);
      const accountId = params.login_hint ?? 'ada';
      const grant = new provider.Grant({ accountId, clientId: params.client_id });
      grant.addOIDCScope('openid profile email');
      const result = { login: { accountId }, consent: { grantId: await grant.save() } };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  };
  for (const server of servers) server.on('request', answer);
  console.log(servers.map((server) => server.address().port).join(' '));
}
