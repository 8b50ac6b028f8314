# doc/: what the manual pages do not tell.
dist_doc_DATA = README.md CHANGELOG.md doc/architecture.md doc/image-format.md doc/criu.md doc/protocol.md doc/limits.md
