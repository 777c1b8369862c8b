"""An S3-compatible object store: files of jobs there, and uploads straight to it."""
