"""What the tests share: files and uploads to send, the journal that they are recorded in, servers, browsers and clients."""
