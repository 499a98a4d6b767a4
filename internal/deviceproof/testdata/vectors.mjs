// Makes vectors.json with the calls that Dynamic's SDK makes (client 1.27.1, keychain service): WebCrypto's P-256, the public
// key compressed by hand, the signature as WebCrypto gives it. Run: node vectors.mjs > vectors.json
const { subtle } = globalThis.crypto;
const hex = (bytes) => Buffer.from(bytes).toString('hex');

const vectors = [];
for (const nonce of [
  'a', '9f2c4b0e-6a9d-4c55-9d39-0c6f3a6f2b11', 'bm9uY2U-_.~!#$%&()*+/:;<=>?@[]^{|}', 'x'.repeat(256),
  ...Array.from({ length: 60 }, () => globalThis.crypto.randomUUID()),
]) {
  const { publicKey, privateKey } = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  const point = new Uint8Array(await subtle.exportKey('raw', publicKey)); // 4, x, y
  const compressed = [2 + (point[64] & 1), ...point.slice(1, 33)];
  const signature = await subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, privateKey, new TextEncoder().encode(nonce));
  vectors.push({ key: hex(compressed), nonce, signature: hex(signature) });
}
console.log(JSON.stringify(vectors, null, 1));
