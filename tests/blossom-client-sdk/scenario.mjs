// What a client does with the reference SDK, the same in Node and in a page: every action, and what the SDK makes of a refusal.
// `server` is under test, `second` is another server, `source` is the URL of a blob that `server` may fetch.

export async function scenario({ sdk, tools, server, second, source, check }) {
  const { Actions, createUploadAuth, createDeleteAuth, createListAuth, createAuthEvent } = sdk
  const key = tools.generateSecretKey()
  const pubkey = tools.getPublicKey(key)
  const signer = async (draft) => tools.finalizeEvent(draft, key)
  const onAuth = (_, hash) => createUploadAuth(signer, hash)
  const unique = tools.getPublicKey(tools.generateSecretKey())
  const text = (words) => new Blob([`${words} ${unique}`], { type: 'text/plain' })
  const done = []
  const step = (name) => done.push(name)

  // Upload; a second time, and with a token shown at once.
  const first = text('first')
  const descriptor = await Actions.uploadBlob(server, first, { onAuth })
  check(/^[0-9a-f]{64}$/.test(descriptor.sha256), 'a hash', descriptor)
  check(descriptor.size === first.size && descriptor.type === 'text/plain', 'size and type', descriptor)
  check(sdk.getHashFromURL(descriptor.url) === descriptor.sha256, 'a URL with the hash', descriptor)
  check(Math.abs(descriptor.uploaded - Date.now() / 1000) < 60, 'the time', descriptor)
  const again = await Actions.uploadBlob(server, first, { auth: true, onAuth })
  check(again.sha256 === descriptor.sha256 && again.uploaded === descriptor.uploaded, 'the same blob', again)
  step('upload')

  // Has, and download by hash and by URL.
  check(await Actions.hasBlob(server, descriptor.sha256), 'the blob is there')
  check(!(await Actions.hasBlob(server, unique)), 'no other blob is')
  for (const url of [new URL(`/${descriptor.sha256}`, server), descriptor.url]) {
    const answer = await fetch(url)
    check(answer.ok && (await answer.text()) === (await first.text()), 'its bytes', String(url))
  }
  const downloaded = await Actions.downloadBlob(server, descriptor.sha256)
  check((await downloaded.text()) === (await first.text()), 'its bytes by the SDK')
  const missing = await Actions.downloadBlob(server, unique).then(() => null, (error) => error)
  check(missing?.status === 404 || /404|no such blob/i.test(String(missing)), 'a missing blob', String(missing))
  step('has and download')

  // List, in pages of one. Upstreams may list more for this key.
  const mine = new Set([descriptor.sha256])
  for (const blob of [text('second'), text('third')]) mine.add((await Actions.uploadBlob(server, blob, { auth: true, onAuth })).sha256)
  const complete = (list) => {
    const hashes = list.map((one) => one.sha256)
    return new Set(hashes).size === hashes.length && [...mine].every((hash) => hashes.includes(hash))
  }
  const all = await Actions.listBlobs(server, pubkey, { onAuth: () => createListAuth(signer) })
  check(complete(all), 'all three in the list, each once', all)
  const paged = []
  for await (const page of Actions.iterateBlobs(server, pubkey, { limit: 1, onAuth: () => createListAuth(signer) })) {
    check(page.length <= 1, 'pages of one', page)
    paged.push(...page)
  }
  check(complete(paged), 'all three in the pages, each once', paged)
  step('list')

  // Mirror.
  if (source) {
    const sha256 = sdk.getHashFromURL(source)
    const mirrored = await Actions.mirrorBlob(server, { url: source, sha256, size: 0, uploaded: 0 }, { onAuth })
    check(mirrored.sha256 === sha256, 'the mirrored blob', mirrored)
    check(await Actions.hasBlob(server, sha256), 'the mirrored blob is there')
    step('mirror')
  }

  // A picture, from which metadata is removed.
  const bytes = Uint8Array.from(atob('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='), (c) => c.charCodeAt(0))
  const picture = new Blob([bytes], { type: 'image/png' })
  const media = await Actions.uploadMedia(server, picture, { auth: true, onAuth: (_, hash) => createUploadAuth(signer, hash, { type: 'media' }) })
  check(media.type === 'image/png' && (await Actions.hasBlob(server, media.sha256)), 'the picture', media)
  step('media')

  // The same file at two servers.
  const shared = text('shared')
  const results = await Actions.multiServerUpload([server, second], shared, { onAuth })
  check(results.size === 2, 'both servers took it', [...results.keys()].map(String))
  const hashes = new Set([...results.values()].map((one) => one.sha256))
  check(hashes.size === 1, 'the same blob', [...hashes])
  for (const one of [server, second]) check(await Actions.hasBlob(one, [...hashes][0]), 'there', String(one))
  step('two servers')

  // A blossom: address with hints, of which the first leads nowhere.
  const address = `blossom:${descriptor.sha256}.txt?xs=127.0.0.1:1&as=${pubkey}`
  const resolved = await Actions.resolveBlob(address, { fallbackServers: [server], getServers: async () => [server] })
  check((await resolved.text()) === (await first.text()), 'the resolved blob')
  step('resolve')

  // A report.
  const report = await signer({
    kind: 1984, created_at: Math.floor(Date.now() / 1000), content: 'seen in a test', tags: [['x', descriptor.sha256, 'spam'], ['p', pubkey]],
  })
  const reported = await Actions.reportBlobs([server], report, { onError: (_, error) => check(false, 'the report', String(error)) })
  check(reported.get(server) === true, 'the report is taken')
  step('report')

  // A refusal reaches the client as words.
  const expired = () => createAuthEvent(signer, 'upload', { blobs: unique, expiration: 1 })
  const refused = await Actions.uploadBlob(server, text('late'), { onAuth: expired, auth: true }).then(() => null, (error) => error)
  check(/expire|token/i.test(String(refused?.message)), 'the reason of a refusal', String(refused))
  const stranger = tools.generateSecretKey()
  const strangers = async (draft) => tools.finalizeEvent(draft, stranger)
  const taken = await Actions.deleteBlob(server, descriptor.sha256, { onAuth: (_, hash) => createDeleteAuth(strangers, hash) })
    .then(() => null, (error) => error)
  check(taken !== null, 'a stranger deletes nothing')
  check(await Actions.hasBlob(server, descriptor.sha256), 'it is still there')
  step('refusals')

  // Delete.
  // The token names the servers that delete: without names it would be valid everywhere, and is shown to no upstream.
  const named = (_, hash) => createDeleteAuth(signer, hash, { servers: [server] })
  const deleted = await Actions.deleteBlob(server, descriptor.sha256, { onAuth: named })
  check(deleted === true, 'deleted')
  check(!(await Actions.hasBlob(server, descriptor.sha256)), 'it is gone')
  const left = await Actions.listBlobs(server, pubkey, { onAuth: () => createListAuth(signer) })
  check(!left.some((one) => one.sha256 === descriptor.sha256), 'and not listed', left)
  step('delete')
  return done
}
