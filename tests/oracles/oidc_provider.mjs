// A certified OpenID Connect provider (npm oidc-provider) for scripts/interop-oidc: its own forms to sign in and to
// consent; the name that is typed is the account. Usage: node oidc_provider.mjs REDIRECT_URI PORT; prints its issuer.
// POST /rotate-keys has it sign with another key, as an operator of it would.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));
const [redirectUri, port] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const key = (kid) => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' };
};
// A group is what stands before the @.
const account = (id) => ({
  accountId: id,
  claims: () => ({ sub: id, email: id, email_verified: !id.startsWith('unverified'), groups: [id.split('@')[0], 'staff'] }),
});
const provider = (keys) => {
  const it = new Provider(issuer, {
    clients: [{
      client_id: 'key wheel', client_secret: 's3cret:with+odd%signs', redirect_uris: [redirectUri],
      post_logout_redirect_uris: [redirectUri.replace(/\/oidc\/.*/, '')],
    }],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    cookies: { keys: ['only-for-this-test'] },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    findAccount: (_, id) => account(id),
    jwks: { keys },
    pkce: { required: () => true },
  });
  it.on('server_error', (_, error) => console.error(error));
  it.on('grant.error', (_, error) => console.error(error));
  return it.callback();
};
let answer = provider([key('first')]);
createServer((request, response) => {
  if (request.url === '/rotate-keys') {
    answer = provider([key('second')]);
    return response.end();
  }
  answer(request, response);
}).listen(Number(port), '127.0.0.1', () => console.log(issuer));
