// node upload.mjs ENDPOINT FILE CHUNK_BYTES: uploads a file, through every cut, and prints its URL.
import fs from 'node:fs'
import { Upload } from 'tus-js-client'

const [endpoint, path, chunkBytes] = process.argv.slice(2)
const upload = new Upload(fs.createReadStream(path), {
  endpoint,
  chunkSize: Number(chunkBytes),
  metadata: { filename: 'große Aufnahme.mp4' },
  retryDelays: Array(60).fill(250),
  onProgress: (sent) => process.stderr.write(`${sent}\n`),
  onError: (error) => { console.error(String(error)); process.exit(1) },
  onSuccess: () => console.log(upload.url),
})
upload.start()
