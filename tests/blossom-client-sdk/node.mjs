// The scenario in Node: node node.mjs SERVER SECOND [SOURCE]. It prints the steps that passed as JSON.
import assert from 'node:assert/strict'
import { pathToFileURL } from 'node:url'
import { scenario } from './scenario.mjs'

// The packages are beside the tests' build products, not beside this file.
const packages = `${process.env.BLOSSOM_CLIENT_SDK_FOLDER}/node_modules`
const sdk = await import(pathToFileURL(`${packages}/blossom-client-sdk/lib/index.js`))
const tools = await import(pathToFileURL(`${packages}/nostr-tools/lib/esm/pure.js`))

const [server, second, source] = process.argv.slice(2)
const check = (holds, what, found) => assert.ok(holds, `${what}: ${JSON.stringify(found)}`)
console.log(JSON.stringify(await scenario({ sdk, tools, server, second, source, check })))
