//! References to images: `busybox`, `quay.io/a/b:tag`, `name@sha256:…`, by the rules of docker.
