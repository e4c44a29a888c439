// An OpenID provider for tests: node provider.mjs PORT [conform]. It prints its issuer when it answers. Port 0 is any free
// one. With `conform` the claims of a person are at the userinfo endpoint alone. Its keys are new at each start.
import { createServer } from 'node:http'
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// The package is beside the tests' build products, not beside this file.
const require = createRequire(`${process.env.OIDC_PROVIDER_FOLDER}/node_modules/`)
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')))

const GROUPS = { root: ['admins', 'users'], alice: ['users', 'other'], mallory: ['other'] }
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })
const client = (id, more) => ({
  client_id: id, client_secret: 'app-secret-of-32-bytes-or-more-0', redirect_uris: ['http://127.0.0.1:4999/auth/callback'],
  grant_types: ['authorization_code'], response_types: ['code'], ...more,
})

const server = createServer()
server.listen(Number(process.argv[2]), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: [client('app'), client('hmac', { id_token_signed_response_alg: 'HS256' })],
    jwks: { keys: [{ ...key, kid: randomUUID(), use: 'sig', alg: 'RS256' }] },
    cookies: { keys: [randomUUID()] },
    pkce: { required: () => true },
    conformIdTokenClaims: process.argv[3] === 'conform',
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'HS256'] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
    features: { devInteractions: { enabled: true } },
    ttl: { AccessToken: 60, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `The ${id}`, email: `${id}@example.test`, email_verified: id !== 'alice', groups: GROUPS[id] ?? [] }),
    }),
  })
  server.on('request', provider.callback())
  console.log(issuer)
})
