"""What schemathesis has to be told: bytes of a resumed upload are bytes."""

import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
